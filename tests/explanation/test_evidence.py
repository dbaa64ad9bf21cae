"""Maps of evidence: where a known network finds what it looks for."""

import keras
import numpy as np
import pytest

from pcam_tfdata import choices
from pcam_tfdata.augmentation import square
from pcam_tfdata.explanation import evidence
from pcam_tfdata.models import networks

GRADIENTS = (choices.GRADCAM, choices.HIRESCAM)
# Evenly dividing and not, with a first and last place of any size.
SIZES = (3, 6, 7, 10, 12, 24, 96)
BLACK = np.zeros(3, np.uint8)


def draw_patches(num_patches: int, seed: int = 0) -> np.ndarray:
    shape = (num_patches, 96, 96, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def explain(model, method, image) -> np.ndarray:
    explainer, found = evidence.make_explainer(model, method, BLACK)
    assert found == method
    return explainer(image)


def find_red(weights=(1.0, -1.0), kernel=None, *, crop=0, is_inner=False):
    """A network whose map has the mean red and green of each 4 x 4 pixels.

    Its logit is the sum over places of `kernel` times the map by `weights`.
    """
    image = keras.Input((96, 96, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    pooling = keras.layers.Conv2D(4, 4, strides=4, use_bias=False)
    x = pooling(x)
    taps = np.zeros((4, 4, 3, 4))
    taps[:, :, 0, 0] = taps[:, :, 1, 1] = 1 / 16
    pooling.set_weights([taps])
    if is_inner:
        x = keras.Model(image, x)(image)
    x = keras.layers.Flatten()(keras.layers.Cropping2D(crop)(x))
    dense = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(image, dense(x))
    size = 24 - 2 * crop
    kernel = np.ones((size, size)) if kernel is None else kernel
    by_place = kernel[..., None] * np.array([*weights, 0, 0])
    dense.set_weights([by_place.reshape(-1, 1)])
    return model


def pool(image: np.ndarray) -> np.ndarray:
    """Mean color of each 4 x 4 pixels, in [0, 1]: float64 [B, 24, 24, 3]."""
    parts = image.reshape(-1, 24, 4, 24, 4, 3) / 255.0
    return parts.mean(axis=(2, 4))


def place(map_: np.ndarray) -> np.ndarray:
    """Evidence by pixel of a 24 x 24 map, the slow way."""
    map_ = np.maximum(map_, 0)
    pixels = map_.repeat(4, axis=1).repeat(4, axis=2)
    return pixels / pixels.sum(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("is_inner", [False, True], ids=["flat", "nested"])
@pytest.mark.parametrize("method", GRADIENTS)
def test_map_is_the_one_worked_out_by_hand(method, is_inner):
    kernel = np.arange(576.0).reshape(24, 24) - 180.5
    image = draw_patches(3)
    model = find_red((1.0, -0.5), kernel, is_inner=is_inner)
    red, green = np.moveaxis(pool(image), -1, 0)[:2]
    weight = kernel.mean() if method == choices.GRADCAM else kernel
    expected = place(weight * (red - 0.5 * green))
    # Sums of 48 products in float32.
    np.testing.assert_allclose(
        explain(model, method, image), expected, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("method", GRADIENTS)
def test_what_a_network_crops_is_no_evidence(method):
    found = explain(find_red((1, 0), crop=1), method, draw_patches(2))
    inner = found[:, 4:92, 4:92]
    np.testing.assert_allclose(inner.sum(axis=(1, 2)), 1)
    assert (inner > 0).all()


def test_evidence_against_tumor_counts_as_none():
    image = draw_patches(2)
    found = explain(find_red((-1, 0)), choices.GRADCAM, image)
    np.testing.assert_array_equal(found, np.zeros((2, 96, 96)))


@pytest.mark.parametrize("size", SIZES)
def test_even_evidence_has_a_ninth_in_the_centre(size):
    found = evidence.spread(np.full((2, size, size), 0.3))
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-12)
    np.testing.assert_allclose(found, 1 / 96**2, rtol=1e-12)
    center = found[:, 32:64, 32:64].sum(axis=(1, 2))
    np.testing.assert_allclose(center, 1 / 9, rtol=1e-12)


def test_a_place_is_spread_over_its_area_alone():
    places = np.zeros((1, 10, 10))
    places[0, 3, 4] = 2.0  # Rows 28.8 to 38.4, columns 38.4 to 48.
    found = evidence.spread(places)[0] * 9.6**2
    np.testing.assert_allclose(found[29:38, 39:48], 1, rtol=1e-12)
    np.testing.assert_allclose(found[28, 39:48], 0.2, rtol=1e-12)
    np.testing.assert_allclose(found[38, 38], 0.4 * 0.6, rtol=1e-12)
    assert not found[:28].any() and not found[39:].any()


def test_occlusion_finds_the_only_spot_that_counts():
    image = np.zeros((2, 96, 96, 3), np.uint8)
    image[0, 32:48, 48:64, 0] = 255
    found = explain(find_red((1, 0)), choices.OCCLUSION, image)
    # A square that covers a part of the spot takes as much away.
    by_axis = np.array([0.125, 0.375, 0.375, 0.125]).repeat(8) / 8
    np.testing.assert_allclose(
        found[0, 24:56, 40:72], np.outer(by_axis, by_axis), rtol=1e-4
    )
    assert not found[1].any()


def test_a_network_without_a_map_is_occluded():
    image = keras.Input((96, 96, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, keras.layers.Dense(1)(x))
    explainer, method = evidence.make_explainer(model, choices.GRADCAM, BLACK)
    assert method == choices.OCCLUSION
    np.testing.assert_allclose(explainer(draw_patches(1)).sum(), 1)


def test_maps_of_an_ensemble_are_averaged():
    members = [find_red((1, 0)), find_red((0, 100))]
    image = keras.Input((96, 96, 3), dtype="uint8")
    logits = [member(image) for member in members]
    model = keras.Model(image, keras.layers.Average()(logits))
    patches = draw_patches(2)
    parts = [explain(m, choices.GRADCAM, patches) for m in members]
    np.testing.assert_allclose(
        explain(model, choices.GRADCAM, patches), np.mean(parts, axis=0)
    )


# The smallest of each kind; the others below.
QUICK = ("seed_cnn", "small_cnn", "resnet_small", "p4m_cnn")


def check_network(name, head):
    keras.utils.set_random_seed(0)
    model = networks.build(name, head)
    # Random weights may find no evidence in any patch; their opposite does then.
    logit = model.get_layer("logit")
    opposite = [-weights for weights in logit.get_weights()]
    patches = draw_patches(2)
    for method in GRADIENTS:
        found = explain(model, method, patches)
        again = explain(model, method, patches)
        np.testing.assert_array_equal(again, found)
        if not found.any():
            logit.set_weights(opposite)
            found = explain(model, method, patches)
        assert found.shape == (2, 96, 96)
        assert (found >= 0).all()
        total = found.sum(axis=(1, 2))
        assert total.any()
        np.testing.assert_allclose(total[total != 0], 1)
    # Fine enough to point into the centre, and no finer than half of the pixels.
    assert 24 <= evidence.find_map(model).output.shape[1] <= 48


@pytest.mark.parametrize("head", choices.HEADS)
@pytest.mark.parametrize("name", QUICK)
def test_a_network_has_maps(name, head):
    try:
        networks.check(name, head, 96)
    except ValueError:
        pytest.skip("it has no such head")
    check_network(name, head)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted({*choices.MODELS} - {*QUICK}))
@pytest.mark.parametrize("head", ["label", "fraction"])
def test_a_large_network_has_maps(name, head):
    check_network(name, head)


@pytest.mark.parametrize("method", GRADIENTS)
def test_map_of_p4m_cnn_moves_with_the_patch(method):
    keras.utils.set_random_seed(1)  # It finds evidence by either method.
    model = networks.build("p4m_cnn")
    views = square.stack_d4(draw_patches(1)).numpy()
    found = explain(model, method, views)
    moved = square.stack_d4(found[:1, ..., None].astype(np.float32)).numpy()
    assert found[0].any()
    np.testing.assert_allclose(found, moved[..., 0], rtol=0.02, atol=1e-6)
