"""The heads of a network against NumPy, and networks without a map."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import classifier_head, inference, networks

SIDE, CHANNELS = 4, 3


def make(head: str) -> keras.Model:
    """A head on a map of its own, with random weights."""
    with replicas.keras_settings("float64", 0):
        features = keras.Input((SIDE, SIDE, CHANNELS), dtype="float64")
        outputs = classifier_head.add_outputs(features, head, dropout=0.5)
        model = keras.Model(features, outputs)
    draw = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(draw.normal(size=weight.shape))
    return model


def draw_features(scale: float) -> np.ndarray:
    shape = (5, SIDE, SIDE, CHANNELS)
    return scale * np.random.default_rng(2).normal(size=shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_fraction_is_learnt_from_the_same_pooled_features():
    model, x = make("fraction"), draw_features(1)
    pooled = np.concatenate([x.mean((1, 2)), x.max((1, 2))], axis=1)
    logit, fraction = map(np.asarray, model(x))
    for name, output in (("logit", logit), ("fraction", sigmoid)):
        kernel, bias = map(np.asarray, model.get_layer(name).weights)
        expected = pooled @ kernel + bias
        if name == "fraction":
            output, expected = fraction, sigmoid(expected)
        np.testing.assert_allclose(output, expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1, 30], ids=["moderate", "steep"])
def test_noisy_or_is_that_of_the_central_places(scale):
    model, x = make("noisy_or"), draw_features(scale)
    kernel, bias = map(np.asarray, model.get_layer("logit").weights)
    chance = sigmoid(x[:, 1:3, 1:3] @ kernel[0, 0] + bias).reshape(5, 4)
    logit, fraction = map(np.asarray, model(x))
    clear = np.prod(1 - chance, axis=1, keepdims=True)
    is_sound = clear > 0  # The twin has no logarithm of 0.
    assert is_sound.sum() > 2
    expected = np.log1p(-clear) - np.log(np.where(is_sound, clear, 1))
    np.testing.assert_allclose(logit[is_sound], expected[is_sound], rtol=1e-6)
    np.testing.assert_allclose(
        fraction, chance.mean(1, keepdims=True), rtol=1e-12
    )
    around = x.copy()
    around[:, [0, 3]] += 1
    around[:, :, [0, 3]] += 1
    np.testing.assert_array_equal(model(around)[0], logit)


@pytest.mark.parametrize(
    "precision", ["float32", "mixed_float16", "mixed_bfloat16"]
)
@pytest.mark.parametrize("value", [-1000.0, 1000.0])
def test_noisy_or_stays_finite(value, precision):
    with replicas.keras_settings(precision, 0):
        features = keras.Input((SIDE, SIDE, 1))
        model = keras.Model(
            features,
            classifier_head.add_outputs(features, "noisy_or", dropout=0),
        )
    model.get_layer("logit").set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    logit, fraction = model(np.full((1, SIDE, SIDE, 1), value, np.float32))
    assert logit.dtype == fraction.dtype == "float32"
    assert np.isfinite(logit).all()
    assert np.sign(logit) == np.sign(value)
    assert fraction == (value > 0)


@pytest.mark.parametrize("head", ["fraction", "noisy_or"])
def test_network_of_two_outputs_opens_without_this_package(tmp_path, head):
    path = str(tmp_path / "best.keras")
    model = networks.build("resnet_small", head)
    model.save(path)
    image = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    np.save(tmp_path / "image.npy", image)
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "logit, fraction = model(np.load(sys.argv[2]))\n"
        "assert 'pcam_tfdata' not in sys.modules\n"
        "print(*np.ravel(logit), *np.ravel(fraction))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, path, str(tmp_path / "image.npy")],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    expected = np.concatenate([np.ravel(part) for part in model(image)])
    found = np.array(result.stdout.split(), float)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    opened = inference.load_network(path)
    assert opened.output_names[1] == "fraction"


@pytest.mark.parametrize(
    ("name", "head", "other"),
    [("seed_cnn", "fraction", "resnet_small"),
     ("small_cnn", "noisy_or", "resnet_small"),
     ("efficientnet_lite0", "noisy_or", "resnet_small")],
)  # fmt: skip
def test_a_network_without_such_a_map_has_no_other_head(name, head, other):
    told = rf"--head={head}: found --model={name}.* Choose --model={other}\."
    with pytest.raises(ValueError, match=told):
        networks.build(name, head)


@pytest.mark.parametrize("name", ["seed_cnn", "resnet_small", "p4m_cnn"])
def test_a_network_for_patches_does_not_enlarge_them(name):
    told = rf"--image_size=128: found --model={name}.*Leave that out, or"
    with pytest.raises(ValueError, match=told):
        networks.build(name, image_size=128)


def enlarge(patches: np.ndarray, size: int) -> np.ndarray:
    """Patches as Pillow enlarges them, a channel at a time."""
    bilinear = Image.Resampling.BILINEAR
    planes = [
        np.asarray(Image.fromarray(plane).resize((size, size), bilinear))
        for plane in np.moveaxis(patches, -1, 1).reshape(-1, 96, 96)
    ]
    return np.moveaxis(np.reshape(planes, (-1, 3, size, size)), 1, -1)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenet_v3_small"])
def test_patches_are_enlarged_within_the_network(name, precision):
    with replicas.keras_settings(precision, 0):
        model = networks.build(name, image_size=128)
    (layer,) = (n for n in model.layers if "resizing" in n.name)
    both = keras.Model(model.input, [layer.input, layer.output, model.output])
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (2, 96, 96, 3), np.uint8)
    given, found, logit = (np.array(part, np.float32) for part in both(image))
    precise = {"float32": 1e-5, "mixed_bfloat16": 0.01}[precision]
    np.testing.assert_allclose(
        found, enlarge(given, 128), rtol=0, atol=precise * abs(given).max()
    )
    assert np.isfinite(logit).all() and logit[0] != logit[1]
