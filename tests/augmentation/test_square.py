"""Moves of pixels, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata.augmentation import square


def move_slowly(image: np.ndarray, move: int) -> np.ndarray:
    """One patch, by the definition."""
    if move & 1:
        image = image.transpose(1, 0, 2)
    if move & 2:
        image = image[::-1]
    if move & 4:
        image = image[:, ::-1]
    return image


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 9, 9, 3), np.uint8)


def int32(values) -> tf.Tensor:
    return tf.constant(values, tf.int32)


@pytest.mark.parametrize("in_graph", [False, True])
def test_moves_are_those_of_the_definition(images, in_graph):
    move = np.arange(16) % 8
    function = tf.function(square.apply_d4) if in_graph else square.apply_d4
    moved = function(tf.constant(images), int32(move))
    assert moved.dtype == tf.uint8
    for image, number, found in zip(images, move, moved, strict=True):
        np.testing.assert_array_equal(found, move_slowly(image, number))


def test_moves_on_a_gpu_are_the_same(images, monkeypatch):
    move = int32(np.arange(16) % 8)
    arguments = tf.constant(images), move, move - 4
    expected = square.shift(*arguments), square.apply_d4(*arguments[:2])
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    found = square.shift(*arguments), square.apply_d4(*arguments[:2])
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)
        assert other.dtype == tf.uint8


def test_the_moves_are_all_turns_and_flips(images):
    image = images[0]
    turned = [np.rot90(image, turn) for turn in range(4)]
    expected = {x.tobytes() for y in turned for x in (y, y[:, ::-1])}
    moved = square.apply_d4(
        tf.constant(np.stack([image] * 8)), tf.range(square.NUM_MOVES)
    )
    assert {x.numpy().tobytes() for x in moved} == expected
    assert len(expected) == 8
    np.testing.assert_array_equal(moved[0], image)


def test_a_stack_holds_every_move_in_order(images):
    stacked = square.stack_d4(tf.constant(images)).numpy()
    for move, views in enumerate(stacked.reshape(8, *images.shape)):
        for image, view in zip(images, views, strict=True):
            np.testing.assert_array_equal(view, move_slowly(image, move))


def test_shift_moves_each_patch_by_its_own_distance(images):
    draw = np.random.default_rng(1)
    rows, columns = draw.integers(-3, 4, (2, 16))
    found = square.shift(tf.constant(images), int32(rows), int32(columns))
    for image, down, right, shifted in zip(
        images, rows, columns, found, strict=True
    ):
        wide = np.pad(image, ((3, 3), (3, 3), (0, 0)), "reflect")
        expected = wide[3 - down : 12 - down, 3 - right : 12 - right]
        np.testing.assert_array_equal(shifted, expected)


def test_a_square_takes_the_mean_color(images):
    draw = np.random.default_rng(2)
    top, left, size = draw.integers(0, 5, (3, 16))
    found = square.cut_out(
        tf.constant(images), int32(top), int32(left), int32(size)
    )
    for image, y, x, edge, cut in zip(
        images, top, left, size, found, strict=True
    ):
        expected = image.copy()
        expected[y : y + edge, x : x + edge] = image.sum((0, 1)) // 81
        np.testing.assert_array_equal(cut, expected)
