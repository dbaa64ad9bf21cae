"""The eight moves of the square, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata.training import augment


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


@pytest.mark.parametrize("in_graph", [False, True])
def test_moves_are_those_of_the_definition(images, in_graph):
    move = np.arange(16) % 8
    function = tf.function(augment.apply_d4) if in_graph else augment.apply_d4
    moved = function(tf.constant(images), tf.constant(move, tf.int32))
    assert moved.dtype == tf.uint8
    for image, number, found in zip(images, move, moved, strict=True):
        np.testing.assert_array_equal(found, move_slowly(image, number))


def test_the_moves_are_all_turns_and_flips(images):
    image = images[0]
    turned = [np.rot90(image, turn) for turn in range(4)]
    expected = {x.tobytes() for y in turned for x in (y, y[:, ::-1])}
    moved = augment.apply_d4(
        tf.constant(np.stack([image] * 8)), tf.range(augment.NUM_MOVES)
    )
    assert {x.numpy().tobytes() for x in moved} == expected
    assert len(expected) == 8
    np.testing.assert_array_equal(moved[0], image)


def test_shares_of_a_batch_move_as_the_whole(images):
    def moved(first, last):
        return augment.random_d4(
            tf.constant(images[first:last]),
            seed=3,
            step=tf.constant(7, tf.int64),
            first=first,
            batch_size=16,
        ).numpy()

    whole = moved(0, 16)
    parts = [moved(first, first + 4) for first in range(0, 16, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole != images).any()


def test_seed_and_step_change_the_moves_and_all_come_as_often():
    image = tf.constant(np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1))
    batch = tf.tile(image, [8192, 1, 1, 1])

    def moved(seed, step):
        return augment.random_d4(
            batch, seed=seed, step=tf.constant(step, tf.int64), first=0,
            batch_size=8192,
        ).numpy().reshape(8192, 9)  # fmt: skip

    one = moved(0, 0)
    np.testing.assert_array_equal(one, moved(0, 0))
    for other in (moved(0, 1), moved(1, 0)):
        same = np.mean((one == other).all(1))
        assert 0.09 < same < 0.16  # One in eight.
    _, counts = np.unique(one, axis=0, return_counts=True)
    assert len(counts) == 8
    assert counts.min() > 880  # 1,024 expected; five standard deviations.
