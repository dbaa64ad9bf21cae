"""Layers of the group p4m, against their definition, and networks of them."""

import itertools
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata.augmentation import square
from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import group_conv, networks

MOVES = np.arange(square.NUM_MOVES)
# Sums of a few thousand products of numbers about 1, in another order: rounding
# is 1e-13 at most. A weight in a wrong place shows in the first digit.
FLOAT64 = {"rtol": 0, "atol": 1e-11}


def draw(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def move_images(image, move) -> np.ndarray:
    moves = tf.fill([len(image)], move)
    return square.apply_d4(tf.constant(image), moves).numpy()


def move_maps(maps, move) -> np.ndarray:
    """Maps of the group after a move of the image that they come from."""
    parts = np.split(move_images(maps, move), 8, axis=-1)
    origin = np.argsort(group_conv.PRODUCTS[move])
    return np.concatenate([parts[h] for h in origin], axis=-1)


def matrix_of(element) -> np.ndarray:
    """Where the element takes (row, column), seen from the centre."""
    matrix = np.eye(2, dtype=int)
    for bit, step in (
        (1, [[0, 1], [1, 0]]),
        (2, [[-1, 0], [0, 1]]),
        (4, [[1, 0], [0, -1]]),
    ):
        if element & bit:
            matrix = step @ matrix
    return matrix


MATRICES = [matrix_of(element) for element in MOVES]


def convolve_slowly(maps, kernel, strides) -> np.ndarray:
    """Sums over places and elements, by the definition of Cohen & Welling.

    Places are counted in halves from the centre, where even sizes have none.

    Args:
        maps: [size, size, elements, channels], 1 element for an image.
        kernel: [kernel_size, kernel_size, elements, channels, filters].
        strides: Step between places of the output.
    """
    size, _, num_elements, _ = maps.shape
    kernel_size, num_places = len(kernel), size // strides
    result = np.zeros((num_places, num_places, 8, kernel.shape[-1]))
    places = itertools.product(range(num_places), repeat=2)
    for (row, column), g in itertools.product(places, MOVES):
        back = MATRICES[g].T  # The inverse.
        centre = strides * (2 * np.array([row, column]) - num_places + 1)
        for i, j, h in itertools.product(
            range(size), range(size), range(num_elements)
        ):
            offset = back @ (2 * np.array([i, j]) - size + 1 - centre)
            y, x = (offset + kernel_size - 1) // 2
            if not (0 <= y < kernel_size and 0 <= x < kernel_size):
                continue
            element = next(
                e
                for e in range(num_elements)
                if num_elements == 1
                or (MATRICES[e] == back @ MATRICES[h]).all()
            )
            result[row, column, g] += maps[i, j, h] @ kernel[y, x, element]
    return result


def test_products_are_those_of_the_moves():
    g, h = np.repeat(MOVES, 8), np.tile(MOVES, 8)
    images = np.tile(draw(1, 3, 3, 1), (64, 1, 1, 1))
    one_by_one = square.apply_d4(square.apply_d4(images, h), g)
    at_once = square.apply_d4(images, group_conv.PRODUCTS[g, h])
    np.testing.assert_array_equal(one_by_one, at_once)


@pytest.mark.parametrize("kind", ["LiftingConv2D", "GroupConv2D"])
@pytest.mark.parametrize(
    ("kernel_size", "strides"), [(1, 1), (3, 1), (2, 2), (4, 2)]
)
def test_convolution_is_that_of_the_definition(kind, kernel_size, strides):
    num_elements = 1 if kind == "LiftingConv2D" else 8
    maps = draw(4, 4, num_elements, 2)
    layer = getattr(group_conv, kind)(3, kernel_size, strides, dtype="float64")
    found = layer(maps.reshape(1, 4, 4, -1))
    (kernel,) = layer.get_weights()
    kernel = kernel.reshape(kernel_size, kernel_size, num_elements, 2, 3)
    expected = convolve_slowly(maps, kernel, strides)
    np.testing.assert_allclose(
        found[0].numpy().reshape(expected.shape), expected, **FLOAT64
    )


def test_normalization_takes_elements_for_places():
    maps = 3 * draw(4, 6, 6, 16) + 2
    layer = group_conv.GroupBatchNormalization(momentum=0, dtype="float64")
    found = layer(maps, training=True).numpy().reshape(-1, 2)
    rows = maps.reshape(-1, 2)
    mean, variance = rows.mean(0), rows.var(0)
    expected = (rows - mean) / np.sqrt(variance + layer.epsilon)
    np.testing.assert_allclose(found, expected, **FLOAT64)
    np.testing.assert_allclose(layer.moving_mean, mean, **FLOAT64)
    np.testing.assert_allclose(layer.moving_variance, variance, **FLOAT64)


@pytest.mark.parametrize("mode", ["max", "mean"])
def test_invariant_pooling_is_over_elements(mode):
    maps = draw(2, 3, 3, 24)
    found = group_conv.InvariantPooling2D(mode, dtype="float64")(maps)
    expected = getattr(np, mode)(maps.reshape(2, 3, 3, 8, 3), axis=3)
    np.testing.assert_allclose(found, expected, **FLOAT64)


@pytest.mark.parametrize(
    ("layer", "takes", "gives"),
    [
        (group_conv.LiftingConv2D(2, 6, 2), move_images, move_maps),
        (group_conv.GroupConv2D(2, 5), move_maps, move_maps),
        (group_conv.GroupConv2D(2, 4, 2), move_maps, move_maps),
        (group_conv.GroupConv2D(2, 3, 3), move_maps, move_maps),
        (group_conv.GroupBatchNormalization(), move_maps, move_maps),
        (keras.layers.MaxPooling2D(2), move_maps, move_maps),
        (group_conv.InvariantPooling2D("max"), move_maps, move_images),
        (group_conv.InvariantPooling2D("mean"), move_maps, move_images),
    ],
    ids=[
        "lifting", "odd", "even", "stride 3", "normalization", "pooling",
        "maximum", "mean",
    ],
)  # fmt: skip
def test_layer_moves_with_its_input(layer, takes, gives):
    layer = type(layer).from_config(layer.get_config() | {"dtype": "float64"})
    maps = draw(2, 12, 12, 16)
    expected = layer(maps, training=True)
    for move in MOVES:
        found = layer(takes(maps, move), training=True)
        np.testing.assert_allclose(found, gives(expected, move), **FLOAT64)


def randomize(model) -> keras.Model:
    """Gives a network weights and statistics as if it had learned."""
    for number, variable in enumerate(model.variables):
        if "seed" in variable.path:
            continue
        value = draw(*variable.shape, seed=number)
        if variable.name == "kernel":
            value *= np.sqrt(2 / np.prod(variable.shape[:-1]))
        elif variable.name in ("gamma", "moving_variance"):
            value = np.exp(value / 2)
        variable.assign(value)
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3), np.uint8)


# What p4m_cnn promises; float32 errs by 1e-6, float64 by 1e-14.
@pytest.mark.numeric
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)]
)
def test_moves_of_a_patch_leave_its_logit(images, precision, tolerance):
    with replicas.keras_settings(precision, seed=0):
        model = randomize(networks.build("p4m_cnn"))
    logits = np.stack([model(move_images(images, move)) for move in MOVES])
    assert logits[0].std() > 0.01  # They tell patches apart.
    error = np.abs(logits - logits[0]) / np.maximum(1, np.abs(logits[0]))
    print(f"largest difference {error.max():.1e}")
    assert error.max() < tolerance


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_gradient_reaches_every_weight(images, precision):
    with replicas.keras_settings(precision, seed=0):
        model = networks.build("p4m_cnn")
        with tf.GradientTape() as tape:
            logit = model(images, training=True)
            loss = tf.reduce_sum(logit * [[1.0], [-2.0]])
    assert model.count_params() < 700_000
    for gradient in tape.gradient(loss, model.trainable_variables):
        assert gradient.dtype == tf.float32
        assert np.isfinite(gradient).all() and np.any(gradient)


@pytest.mark.parametrize(
    "module",
    [
        "pcam_tfdata.models.inference",
        pytest.param("copied", marks=pytest.mark.long),
    ],
)
def test_saved_network_opens_in_another_process(images, module, tmp_path):
    model = randomize(networks.build("p4m_cnn"))
    model.save(tmp_path / "best.keras")
    np.save(tmp_path / "images.npy", images)
    shutil.copy(group_conv.__file__, tmp_path / "copied.py")
    code = (
        f"import sys, {module}, keras, numpy as np\n"
        "model = keras.models.load_model('best.keras')\n"
        "np.save('logits.npy', model(np.load('images.npy')))\n"
        f"assert ('pcam_tfdata' in sys.modules) == ({module!r} != 'copied')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    # Another process may share the sums among other threads.
    np.testing.assert_allclose(
        np.load(tmp_path / "logits.npy"), model(images), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("make", "shape", "found"),
    [
        (lambda: group_conv.LiftingConv2D(2, 3, 2), None, "kernel_size=3 with"),
        (lambda: group_conv.GroupConv2D(2, 1, 3), None, "kernel_size=1 with"),
        (
            lambda: group_conv.LiftingConv2D(2, 4, 2),
            (1, 5, 5, 3),
            "found maps of 5 x 5",
        ),
        (
            lambda: group_conv.GroupConv2D(2, 3),
            (1, 4, 6, 8),
            "found maps of 4 x 6",
        ),
        (lambda: group_conv.GroupConv2D(2, 3), (1, 4, 4, 3), "found 3 maps"),
        (group_conv.GroupBatchNormalization, (1, 4, 4, 9), "found 9 maps"),
        (group_conv.InvariantPooling2D, (1, 4, 4, 9), "found 9 maps"),
        (lambda: group_conv.InvariantPooling2D("sum"), None, "mode='sum'"),
    ],
    ids=[
        "odd at even", "small", "odd size", "not square", "image", "normalized",
        "pooled", "mode",
    ],
)  # fmt: skip
def test_layer_that_would_not_move_with_its_input_is_refused(
    make, shape, found
):
    with pytest.raises(ValueError, match=found):
        make()(np.zeros(shape, np.float32))
