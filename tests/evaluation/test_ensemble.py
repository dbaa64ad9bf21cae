"""An ensemble is a run: the mean of the calibrated logits of its members."""

import json

import conftest
import keras
import numpy as np
import pytest

from pcam_tfdata.evaluation import ensemble
from pcam_tfdata.models import inference
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import calibration_file, environment_file, run_folder

CALIBRATIONS = (
    calibration_file.Calibration(2.0, -1.0),
    calibration_file.Calibration(0.5, 0.25),
)
NONE = calibration_file.Calibration()


def write_run(run_dir, seed, known=NONE, has_fraction=False, **flags):
    """A run with a tiny network, and a calibration."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((96, 96, 3), dtype="uint8")
    x = keras.layers.AveragePooling2D(24)(keras.layers.Rescaling(1.0)(image))
    x = keras.layers.Flatten()(x)
    outputs = keras.layers.Dense(1)(x)
    if has_fraction:
        fraction = keras.layers.Dense(1, "sigmoid", name="fraction")(x)
        outputs = [outputs, fraction]
    model = keras.Model(image, outputs, name="tiny")
    run_dir.mkdir(parents=True)
    path = str(run_dir / run_folder.BEST_MODEL)
    model.save(path)
    splits = {"train_splits": ["fold1"], "validation_splits": ["fold0"]}
    run_folder.write_flags(str(run_dir), {"model": "tiny"} | splits | flags)
    environment_file.add_start(str(run_dir), {"manifest_sha256": "1" * 64})
    sha256 = manifest.hash_file(path)
    calibration_file.write(str(run_dir), "none", sha256, known)
    return model


@pytest.fixture
def runs(tmp_path):
    models = [
        write_run(tmp_path / name, seed, known)
        for seed, (name, known) in enumerate(
            zip("ab", CALIBRATIONS, strict=True)
        )
    ]
    return tmp_path, models


def test_its_logit_is_the_mean_of_calibrated_ones(runs):
    folder, models = runs
    ensemble.make_run([str(folder / "a"), str(folder / "b")], str(folder / "c"))
    model = keras.models.load_model(run_folder.find_model(str(folder / "c")))
    shape = (3, 96, 96, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = np.mean(
        [
            known.apply(member(image))
            for member, known in zip(models, CALIBRATIONS, strict=True)
        ],
        axis=0,
    )
    np.testing.assert_allclose(model(image), expected, rtol=1e-5)


def test_tumor_fractions_of_members_are_left_out(tmp_path):
    models = [
        write_run(tmp_path / name, seed, has_fraction=True)
        for seed, name in enumerate("ab")
    ]
    run_dirs = [str(tmp_path / name) for name in "ab"]
    ensemble.make_run(run_dirs, str(tmp_path / "c"))
    model = inference.load_network(run_folder.find_model(str(tmp_path / "c")))
    image = np.zeros((2, 96, 96, 3), np.uint8)
    expected = np.mean([member(image)[0] for member in models], axis=0)
    np.testing.assert_allclose(model(image), expected, rtol=1e-5)


def test_a_network_of_unknown_calibration_counts_as_it_is(runs):
    folder, _ = runs
    (folder / "a" / run_folder.CALIBRATION).unlink()
    ensemble.make_run([str(folder / "a"), str(folder / "b")], str(folder / "c"))
    text = (folder / "c" / run_folder.ENVIRONMENT).read_text()
    assert json.loads(text)["starts"][0]["calibrations"] == [
        NONE._asdict(),
        CALIBRATIONS[1]._asdict(),
    ]


def test_folds_of_a_cross_validation_leave_nothing_to_validate(tmp_path):
    names = ("fold0", "fold1", "fold2")
    (tmp_path / "cv").mkdir()
    (tmp_path / "cv" / run_folder.CROSS_VALIDATION).write_text("{}")
    for seed, name in enumerate(names):
        others = [other for other in names if other != name]
        splits = {"train_splits": others, "validation_splits": [name]}
        write_run(tmp_path / "cv" / name, seed, **splits)
    output_dir = str(tmp_path / "all")
    members = ensemble.make_run([str(tmp_path / "cv")], output_dir)
    assert members == [str(tmp_path / "cv" / name) for name in names]
    flags = run_folder.read_flags(output_dir)
    assert flags["train_splits"] == ",".join(names)
    assert flags["validation_splits"] == ""


def test_runs_on_other_records_are_refused(runs):
    folder, _ = runs
    path = folder / "b" / run_folder.ENVIRONMENT
    path.write_text(path.read_text().replace("1" * 64, "2" * 64))
    run_dirs = [str(folder / "a"), str(folder / "b")]
    with pytest.raises(ValueError, match="2 sets of records"):
        ensemble.make_run(run_dirs, str(folder / "c"))
    with pytest.raises(ValueError, match="found 1 runs"):
        ensemble.make_run(run_dirs[:1], str(folder / "c"))
    with pytest.raises(ValueError, match="the same network twice"):
        ensemble.make_run(run_dirs[:1] * 2, str(folder / "c"))
    with pytest.raises(FileNotFoundError, match=r"best\.keras: not found"):
        ensemble.make_run([str(folder)], str(folder / "c"))
    with pytest.raises(FileExistsError, match="a folder to make"):
        ensemble.make_run(run_dirs, str(folder / "b"))
    assert not (folder / "c").exists()


@pytest.mark.long
def test_an_ensemble_is_scored_and_predicts_as_a_run(records_dir, tmp_path):
    places = [f"--records_dir={records_dir}"]
    for name in "ab":
        conftest.run_pcam(
            "train", *places, f"--run_dir={tmp_path / name}",
            "--model=small_cnn", "--batch_size=16", "--epochs=1",
            f"--seed={ord(name)}",
        )  # fmt: skip
    run_dir = f"--run_dir={tmp_path / 'c'}"
    for command in (
        ["ensemble", f"--run_dir={tmp_path / 'a'},{tmp_path / 'b'}",
         f"--output_dir={tmp_path / 'c'}"],
        ["evaluate", *places, run_dir, "--tta=d4"],
        ["predict", *places, run_dir, "--tta=d4",
         f"--output_csv={tmp_path / 'submission.csv'}"],
        ["runs", f"--runs_dir={tmp_path}"],
    ):  # fmt: skip
        done = conftest.run_pcam(*command)
        assert done.returncode == 0, done.stderr
    assert "ensemble" in done.stdout
    scores = json.loads((tmp_path / "c" / "metrics.json").read_text())
    assert scores["splits"] == ["fold0"]
    assert not scores["warnings"] or "dead" in scores["warnings"][0]
