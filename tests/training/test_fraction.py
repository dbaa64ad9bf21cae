"""The share of tumor is learnt beside the label, scored and predicted."""

import functools
import json

import keras
import loaded
import numpy as np
import pandas
import pytest
import source_files
import tensorflow as tf
from conftest import convert_folder

from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import networks
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import run_folder
from pcam_tfdata.synthetic import kaggle_folder
from pcam_tfdata.training import steps

BATCH_SIZE = 16
RATE = 0.1
FRACTIONS = np.random.default_rng(0).random(BATCH_SIZE).astype(np.float32)
FRACTIONS[::3] = np.nan


def build() -> keras.Model:
    image = keras.Input((6, 6, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    logit = keras.layers.Dense(1, name="logit")(x)
    fraction = keras.layers.Dense(1, "sigmoid", name="fraction")(x)
    return keras.Model(image, [logit, fraction])


def make_batch() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    return {
        "image": draw.integers(0, 256, (BATCH_SIZE, 6, 6, 3), np.uint8),
        "label": draw.integers(0, 2, BATCH_SIZE),
        "row": draw.permutation(BATCH_SIZE),
    }


def step(strategy, **recipe) -> tuple[list[np.ndarray], ...]:
    """Weights before and after a step of SGD, and the sums that it told."""
    trainer = steps.Trainer(
        strategy,
        build,
        functools.partial(keras.optimizers.SGD, RATE),
        steps.Recipe(BATCH_SIZE, precision="float64", xla="off", **recipe),
        fractions=FRACTIONS,
    )
    before = [np.array(w) for w in trainer.model.trainable_weights]
    ds = tf.data.Dataset.from_tensors(make_batch())
    batches = iter(replicas.distribute(ds, strategy))
    sums, _, _ = trainer.run_steps(batches, 0, 1, tf.zeros([3], tf.float64))
    return before, [np.array(w) for w in trainer.model.trainable_weights], sums


def test_known_fractions_add_their_cross_entropy_to_the_gradient():
    before, after, sums = step(tf.distribute.OneDeviceStrategy("/CPU:0"))
    batch = make_batch()
    x = batch["image"].reshape(BATCH_SIZE, -1) / 255
    kernel, bias, fraction_kernel, fraction_bias = before
    logit = (x @ kernel + bias)[:, 0]
    label = batch["label"]
    share = 1 / (1 + np.exp(-(x @ fraction_kernel + fraction_bias)[:, 0]))
    target = FRACTIONS[batch["row"]]
    wrong = np.stack(
        [
            1 / (1 + np.exp(-logit)) - label,
            np.where(np.isnan(target), 0, share - target),
        ]
    )
    expected = []
    for gradient in wrong / BATCH_SIZE:
        expected += [(x.T @ gradient)[:, None], gradient.sum()[None]]
    for old, new, gradient in zip(before, after, expected, strict=True):
        np.testing.assert_allclose(new, old - RATE * gradient, atol=1e-8)
    # What is told is the loss of the label.
    loss = np.sum(np.logaddexp(0, logit) - label * logit)
    assert float(sums[0]) == pytest.approx(loss, rel=1e-6)


def test_replicas_and_parts_learn_the_same_fractions(virtual_devices):
    _, expected, _ = step(tf.distribute.OneDeviceStrategy("/CPU:0"))
    two = tf.distribute.MirroredStrategy(virtual_devices[:2])
    for strategy, num_parts in ((two, 1), (two, 2)):
        _, found, _ = step(strategy, gradient_accumulation_steps=num_parts)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.fixture(scope="module")
def masked_dir(tmp_path_factory):
    """Records of synthetic patches, with masks, in PatchCamelyon's own form."""
    folder = tmp_path_factory.mktemp("pcam")
    for split, seed in (("train", 0), ("valid", 1)):
        patches = kaggle_folder.make_patches(96, seed)
        columns = {
            "x": patches.image,
            "y": patches.label.reshape(96, 1, 1, 1),
            "mask": patches.tumor[..., None],
        }
        for name, values in columns.items():
            source_files.write_h5(folder, f"{split}_{name}", name, values)
    output_dir = str(folder / "records")
    convert_folder(folder, output_dir, source="hdf5")
    return output_dir


def test_records_of_masks_tell_fractions(masked_dir):
    records = records_folder.open_folder(masked_dir)
    found = records.read_tumor_fractions(["validation"])
    first = records.content.first_row("validation")
    expected = kaggle_folder.make_patches(96, 1).tumor_fraction
    np.testing.assert_array_equal(found[first : first + 96], expected)
    others = np.delete(found, range(first, first + 96))
    assert len(others) and np.isnan(others).all()


@pytest.mark.parametrize("head", ["fraction", "noisy_or"])
def test_a_fraction_is_trained_scored_and_predicted(masked_dir, tmp_path, head):
    run_dir = tmp_path / "run"
    folders = [f"--records_dir={masked_dir}", f"--run_dir={run_dir}"]
    result = loaded.run(
        "train", *folders, "--model=resnet_small", f"--head={head}",
        "--train_splits=train", "--validation_splits=validation",
        "--batch_size=16", "--epochs=1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    result = loaded.run("evaluate", *folders, "--num_resamples=0")
    assert result.returncode == 0, result.stderr
    assert "tumor fraction, mean error" in result.stdout
    scores = json.loads((run_dir / "metrics.json").read_text())
    table = pandas.read_csv(run_dir / "predictions.csv")
    known = records_folder.open_folder(masked_dir).read_tumor_fractions(
        ["validation"]
    )[table.row]
    error = np.abs(known - table.fraction).mean()
    assert scores["fraction_mae"] == pytest.approx(error)
    expected = np.corrcoef(known, table.fraction)[0, 1]
    assert scores["fraction_correlation"] == pytest.approx(expected)
    output = tmp_path / "out.csv"
    predict = ["predict", *folders, f"--output_csv={output}", "--with_fraction"]
    result = loaded.run(*predict, "--split=validation")
    assert result.returncode == 0, result.stderr
    found = pandas.read_csv(output)
    np.testing.assert_allclose(found.fraction, table.fraction, rtol=1e-4)
    result = loaded.run(*predict, "--shard_range=0:1")
    assert result.returncode == 2
    assert "found --with_fraction with --shard_range" in result.stderr


def test_what_has_no_fraction_is_refused(records_dir, tmp_path):
    result = loaded.run(
        "train", f"--records_dir={records_dir}", f"--run_dir={tmp_path / 'run'}",
        "--model=resnet_small", "--head=fraction", "--batch_size=8",
    )  # fmt: skip
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "--head=fraction: found no patch in" in line
    assert not (tmp_path / "run").exists()
    other = tmp_path / "other"
    other.mkdir()
    networks.build("small_cnn").save(other / run_folder.BEST_MODEL)
    result = loaded.run(
        "predict", f"--records_dir={records_dir}", f"--run_dir={other}",
        f"--output_csv={tmp_path / 'out.csv'}", "--with_fraction",
    )  # fmt: skip
    assert result.returncode == 1
    assert "which gives no tumor fraction, expected" in result.stderr
    assert not (tmp_path / "out.csv").exists()
