"""What is drawn for a patch follows from seed, step and index alone."""

import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata import choices, schema
from pcam_tfdata.augmentation import recipes

BATCH_SIZE = 16
RANDOM = [name for name in choices.AUGMENTATIONS if name != "none"]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (BATCH_SIZE, 96, 96, 3), np.uint8)


@tf.function
def augment_in_graph(image, name, seed, step, first, batch_size):
    return recipes.augment(
        image,
        name=name,
        seed=seed,
        step=step,
        first=first,
        batch_size=batch_size,
    )


def augment(image, name, seed=3, step=7, first=0, batch_size=BATCH_SIZE):
    step = tf.constant(step, tf.int64)
    return augment_in_graph(
        tf.constant(image), name, seed, step, first, batch_size
    ).numpy()


def test_none_changes_nothing(images):
    np.testing.assert_array_equal(augment(images, "none"), images)


@pytest.mark.parametrize("num_shares", [2, 4])
@pytest.mark.parametrize("name", RANDOM)
def test_shares_of_a_batch_change_as_the_whole(images, name, num_shares):
    size = BATCH_SIZE // num_shares
    parts = [
        augment(images[first : first + size], name, first=first)
        for first in range(0, BATCH_SIZE, size)
    ]
    whole = augment(images, name)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole != images).any(axis=(1, 2, 3)).mean() > 0.5


@pytest.mark.parametrize("name", RANDOM)
def test_eagerly_it_is_nearly_the_same(images, name):
    eager = recipes.augment(
        tf.constant(images),
        name=name,
        seed=3,
        step=tf.constant(7, tf.int64),
        first=0,
        batch_size=BATCH_SIZE,
    )
    difference = np.abs(eager.numpy() - augment(images, name).astype(int))
    # A graph multiplies in another order, which turns what lies between two
    # levels. float32 is off by 0.01 of a level at most.
    assert difference.max() <= 1
    assert difference.mean() < 0.02


@pytest.mark.parametrize("name", RANDOM)
def test_seed_and_step_change_what_is_drawn(images, name):
    one = augment(images, name)
    np.testing.assert_array_equal(one, augment(images, name))
    for other in ({"seed": 4}, {"step": 8}):
        changed = augment(images, name, **other) != one
        assert changed.any(axis=(1, 2, 3)).mean() > 0.5


def test_all_moves_come_as_often():
    image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
    moved = augment(np.tile(image, [8192, 1, 1, 1]), "d4", batch_size=8192)
    _, counts = np.unique(moved.reshape(8192, 9), axis=0, return_counts=True)
    assert len(counts) == 8
    assert 0.09 < counts.min() / 8192 <= counts.max() / 8192 < 0.16


def test_a_square_is_cut_out_beside_the_centre(images):
    draw = np.random.default_rng(1).random((512, 4), np.float32)
    noise = np.tile(images[:1], [512, 1, 1, 1])
    cut = recipes._cut_out_beside(tf.constant(noise), tf.constant(draw), 24)
    changed = (cut.numpy() != noise).any(axis=-1)
    assert not changed[:, schema.CENTER, schema.CENTER].any()
    # A pixel of noise has the mean color in one of 256^3 cases.
    sizes = np.sqrt(changed.sum(axis=(1, 2)))
    np.testing.assert_allclose(sizes, np.round(sizes), atol=0.05)
    assert set(np.round(sizes).astype(int)) == set(range(25))
    # Each edge of the patch is reached, and none less than half as often.
    reached = changed.any(axis=0)
    assert all(
        edge.any()
        for edge in (reached[0], reached[-1], reached[:, 0], reached[:, -1])
    )


def test_strong_changes_colors_more_than_stain(kaggle_sample):
    from PIL import Image

    paths = sorted((kaggle_sample / "train").glob("*.tif"))[:BATCH_SIZE]
    real = np.stack([np.asarray(Image.open(path)) for path in paths])
    color = real.mean(axis=(1, 2))

    def distance(name):
        return np.abs(augment(real, name).mean(axis=(1, 2)) - color).mean()

    assert distance("d4") < 1e-9 < distance("stain") < distance("strong")
