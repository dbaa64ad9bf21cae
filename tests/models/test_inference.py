"""A saved network is looked at before it predicts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata.models import inference, networks
from pcam_tfdata.pipeline import input_choice, patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import memory

SHAPE = (96, 96, 3)


def test_patches_read_once_need_no_memory_to_shuffle(records_dir, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1 << 10)
    records = records_folder.open_folder(records_dir)
    reading = patch_source.InputOptions("stream")
    source = patch_source.Source(records, ["test"], reading)
    with pytest.raises(ValueError, match="Lower --shuffle_megabytes"):
        input_choice.open_patches(source)
    options = inference.InferenceOptions(input="stream")
    _, patches = options.open_records(records, ["test"])
    assert patches.num_patches > 0


def network(shape=SHAPE, dtype="uint8", units=1, activation=None, after=()):
    image = keras.Input(shape, dtype=dtype)
    x = keras.layers.AveragePooling2D(24)(keras.layers.Rescaling(1.0)(image))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(units, activation=activation)(x)
    for layer in after:
        x = layer(x)
    return keras.Model(image, x)


def nested():
    image = keras.Input(SHAPE, dtype="uint8")
    return keras.Model(image, network(activation="sigmoid")(image))


def wide():
    image = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(1)(x))


def sequential():
    layers = [keras.layers.Rescaling(1.0), keras.layers.Flatten()]
    image = keras.Input(SHAPE, dtype="uint8")
    return keras.Sequential([image, *layers, keras.layers.Dense(1)])


def load(model, tmp_path):
    path = str(tmp_path / "best.keras")
    model.save(path)
    inference.load(path, tf.distribute.get_strategy())


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: network(activation="sigmoid"), "ends in sigmoid"),
        (lambda: network(activation="relu"), "ends in relu"),
        (nested, "ends in sigmoid"),
        (lambda: network(after=[keras.ops.sigmoid]), "ends in sigmoid"),
        (
            lambda: network(after=[keras.layers.Activation("sigmoid")]),
            "ends in sigmoid",
        ),
        (
            lambda: network(
                activation="sigmoid",
                after=[
                    keras.layers.Activation("linear"),
                    keras.layers.Reshape((1,)),
                ],
            ),
            "ends in sigmoid",
        ),
        (
            lambda: network(units=2, activation="softmax"),
            r"gives float32\[None, 2\], expected float\[None, 1\]",
        ),
        (
            lambda: network(shape=(224, 224, 3)),
            r"takes uint8\[None, 224, 224, 3\], expected uint8\[None, 96, 96",
        ),
        (lambda: network(dtype="float32"), r"takes float32\[None, 96, 96, 3\]"),
    ],
    ids=[
        "sigmoid", "relu", "nested", "operation", "layer", "behind others",
        "softmax", "size", "dtype",
    ],
)  # fmt: skip
def test_network_that_gives_no_logit_is_refused(make, found, tmp_path):
    with pytest.raises(ValueError, match=f"network that {found}") as told:
        load(make(), tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "make",
    [
        network,
        lambda: network(activation="sigmoid", after=[keras.layers.Dense(1)]),
        wide,
        sequential,
        lambda: network(after=[keras.layers.Activation("linear")]),
        lambda: networks.build("small_cnn"),
        lambda: networks.build("seed_cnn"),
    ],
    ids=[
        "dense",
        "within",
        "any size",
        "sequential",
        "linear",
        "small_cnn",
        "seed_cnn",
    ],
)
def test_network_that_gives_a_logit_is_loaded(make, tmp_path):
    load(make(), tmp_path)


def test_outputs_of_views_are_the_mean_over_turns_and_flips():
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (4, *SHAPE), np.uint8)
    model = network()
    share = keras.layers.Dense(
        1,
        "sigmoid",
        name="fraction",
        kernel_initializer=keras.initializers.RandomNormal(0, 1e-3),
    )(model.layers[-2].output)
    model = keras.Model(model.input, [model.output, share])
    batch = {"image": image, "label": np.zeros(4, np.int64),
             "row": np.arange(4), "mask": np.arange(4) < 3}  # fmt: skip
    strategy = tf.distribute.OneDeviceStrategy("/CPU:0")

    def predict(tta):
        batches = tf.data.Dataset.from_tensors(batch)
        predictor = inference.Predictor(model, strategy, tta=tta)
        found = inference.join(predictor.stream(batches, 3, "test"))
        assert list(found) == ["row", "label", "logit", "fraction"]
        return np.array([found["logit"], found["fraction"]])

    turned = [np.rot90(image, turn, (1, 2)) for turn in range(4)]
    views = [view for x in turned for view in (x, x[:, ::-1])]
    outputs = [
        np.array([output[:3, 0] for output in model(view, training=False)])
        for view in views
    ]
    found, plain = predict("d4"), predict("none")
    np.testing.assert_allclose(found, np.mean(outputs, axis=0), rtol=1e-4)
    np.testing.assert_allclose(plain, outputs[0], rtol=1e-4)
    assert np.abs(found - plain).max(1).min() > 1e-3
