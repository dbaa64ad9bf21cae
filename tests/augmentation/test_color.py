"""Changes of color and sharpness, against slow ones in float64."""

import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata.augmentation import color

NUM_PATCHES = 8


def change_slowly(image, factor, shift, contrast, brightness) -> np.ndarray:
    """One patch, pixel by pixel, by the definition."""
    changed = np.empty(image.shape)
    for index in np.ndindex(image.shape[:2]):
        density = -np.log((image[index] + 1.0) / 256)
        stains = np.linalg.solve(color.STAINS.T, density)
        density = color.STAINS.T @ (factor * stains + shift)
        level = 256 * np.exp(-density) - 1
        changed[index] = (level - 127.5) * contrast + 127.5 + 255 * brightness
    return changed


def blur_slowly(image, share) -> np.ndarray:
    """One patch, by a kernel of 3 x 3."""
    kernel = np.outer(*[[share, 1 - 2 * share, share]] * 2)
    wide = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), "edge")
    height, width, _ = image.shape
    return sum(
        kernel[y, x] * wide[y : y + height, x : x + width]
        for y in range(3)
        for x in range(3)
    )


@pytest.fixture
def images() -> np.ndarray:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (NUM_PATCHES, 7, 5, 3), np.uint8)
    images[0] = 0
    images[1] = 255
    return images


def assert_rounded(found: tf.Tensor, exact: np.ndarray) -> None:
    """Every level is the nearest; where two are as near, either."""
    assert found.dtype == tf.uint8
    error = np.abs(found.numpy() - np.clip(exact, 0, 255))
    # float32 is off by less than 0.01 of a level here.
    assert error.max() < 0.51


@pytest.mark.parametrize("in_graph", [False, True])
def test_color_changes_as_defined(images, in_graph):
    draw = np.random.default_rng(1)
    factor = draw.uniform(0.7, 1.3, (NUM_PATCHES, 3))
    shift = draw.uniform(-0.1, 0.1, (NUM_PATCHES, 3))
    contrast = draw.uniform(0.8, 1.2, NUM_PATCHES)
    brightness = draw.uniform(-0.1, 0.1, NUM_PATCHES)
    given = (factor, shift, contrast, brightness)
    change = tf.function(color.change_color) if in_graph else color.change_color
    found = change(
        tf.constant(images), *(tf.constant(x, tf.float32) for x in given)
    )
    exact = [change_slowly(*one) for one in zip(images, *given, strict=True)]
    assert_rounded(found, np.stack(exact))
    assert (found != images).numpy().mean() > 0.5


def test_no_change_of_color_leaves_every_level(images):
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 99)], axis=-1)
    found = color.change_color(
        tf.constant(image.reshape(1, 16, 16, 3)),
        tf.ones([1, 3]), tf.zeros([1, 3]), tf.ones([1]), tf.zeros([1]),
    )  # fmt: skip
    np.testing.assert_array_equal(found[0], image.reshape(16, 16, 3))


def test_more_hematoxylin_is_bluer_and_more_eosin_pinker(images):
    stained = np.full((2, 4, 4, 3), 170, np.uint8)
    factor = tf.ones([2, 3])
    shift = tf.constant([[0.2, 0, 0], [0, 0.2, 0]])
    changed = color.change_color(
        tf.constant(stained), factor, shift, tf.ones([2]), tf.zeros([2])
    )
    (red, green, blue), (pink_red, pink_green, _) = changed[:, 0, 0].numpy()
    assert green < red < blue < 170
    assert pink_green < pink_red - 20


def test_blur_mixes_neighbors(images):
    share = np.linspace(0, 0.25, NUM_PATCHES)
    found = color.blur(tf.constant(images), tf.constant(share, tf.float32))
    exact = [blur_slowly(*one) for one in zip(images, share, strict=True)]
    assert_rounded(found, np.stack(exact))
    np.testing.assert_array_equal(found[0], images[0])
