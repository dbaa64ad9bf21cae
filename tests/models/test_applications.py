"""Networks of Keras take patches as they are."""

import inspect

import keras
import numpy as np
import pytest

from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import applications, networks


def make_pixels() -> np.ndarray:
    shape = (2, 96, 96, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.long] * (name != "mobilenet_v3_small")
        )
        for name in applications.APPLICATIONS
    ],
)
def test_pixels_enter_as_the_networks_own_module_has_it(name):
    make = applications.APPLICATIONS[name].make
    module = inspect.getmodule(inspect.unwrap(make))
    with replicas.keras_settings(seed=0):
        ours = applications.build_backbone(name)
        theirs = make(include_top=False, weights=None, input_shape=(96, 96, 3))
        theirs.set_weights(ours.get_weights())
        pixels = make_pixels().astype(np.float32)
        expected = np.asarray(theirs(module.preprocess_input(pixels)))
        found = np.asarray(ours(make_pixels()))
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.long
@pytest.mark.parametrize("name", applications.APPLICATIONS)
def test_saved_network_gives_the_same_logit(name, tmp_path):
    model = networks.build(name)
    path = str(tmp_path / "best.keras")
    model.save(path)
    found = keras.models.load_model(path)(make_pixels())
    expected = model(make_pixels())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not any(
        layer.momentum > 0.99
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    )
