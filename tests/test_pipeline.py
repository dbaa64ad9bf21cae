"""Both ways in: every patch once an epoch, in an order that a seed fixes."""

import os

import numpy as np
import pytest
import tensorflow as tf
from conftest import NUM_TEST, NUM_TRAIN

from pcam_tfdata import choices, manifest, pipeline, schema, tables

FOLDS = tuple(f"fold{n}" for n in range(5))
INPUTS = pytest.mark.parametrize("input", choices.INPUTS)


def train_batches(records_dir, input, **options) -> tf.data.Dataset:
    options = {
        "batch_size": 16, "seed": 3, "first_step": 0, "num_steps": 15,
    } | options  # fmt: skip
    source = pipeline.Source(records_dir, FOLDS, input)
    return pipeline.train_batches(source, **options)


def rows_of(ds: tf.data.Dataset) -> np.ndarray:
    return np.concatenate([batch["row"] for batch in ds.as_numpy_iterator()])


def check_against_sidecar(records_dir, batch) -> None:
    path = os.path.join(records_dir, manifest.SIDECAR_FILE)
    sidecar = tables.read_csv(path, ("id", "label"))
    for image, label, row in zip(
        batch["image"], batch["label"], batch["row"], strict=True
    ):
        found = (schema.hash_pixels(np.ascontiguousarray(image)), str(label))
        assert found == sidecar[row]


@INPUTS
def test_batches_hold_the_patches_of_their_rows(records_dir, input):
    for batch in train_batches(records_dir, input).as_numpy_iterator():
        check_against_sidecar(records_dir, batch)


@INPUTS
def test_every_patch_comes_once_an_epoch(records_dir, input):
    rows = rows_of(train_batches(records_dir, input))  # 15 * 16 = 4 * 60.
    for epoch in rows.reshape(4, NUM_TRAIN):
        assert sorted(epoch) == list(range(NUM_TRAIN))
    assert (rows[:NUM_TRAIN] != rows[NUM_TRAIN : 2 * NUM_TRAIN]).any()


@INPUTS
def test_restart_at_a_step_gives_the_same_batches(records_dir, input):
    whole = rows_of(train_batches(records_dir, input))
    rest = rows_of(train_batches(records_dir, input, first_step=6))
    np.testing.assert_array_equal(rest, whole[6 * 16 :])


@INPUTS
def test_seed_fixes_the_order(records_dir, input):
    rows = rows_of(train_batches(records_dir, input))
    again = rows_of(train_batches(records_dir, input))
    other = rows_of(train_batches(records_dir, input, seed=4))
    np.testing.assert_array_equal(rows, again)
    assert (rows != other).any()


@INPUTS
def test_training_shapes_are_static(records_dir, input):
    spec = train_batches(records_dir, input).element_spec
    assert spec["image"].shape == (16, 96, 96, 3)
    assert spec["image"].dtype == tf.uint8
    assert spec["label"].shape == spec["row"].shape == (16,)


@INPUTS
@pytest.mark.parametrize("batch_size", [1, 16, 67, 100])
def test_evaluation_shows_every_patch_once(records_dir, input, batch_size):
    source = pipeline.Source(records_dir, ("test", *FOLDS), input)
    ds = pipeline.eval_batches(source, batch_size=batch_size)
    assert ds.element_spec["image"].shape == (batch_size, 96, 96, 3)
    rows = []
    for batch in ds.as_numpy_iterator():
        mask = batch.pop("mask")
        kept = {name: part[mask] for name, part in batch.items()}
        check_against_sidecar(records_dir, kept)
        rows += kept["row"].tolist()
    test = range(NUM_TRAIN, NUM_TRAIN + NUM_TEST)
    assert rows == [*test, *range(NUM_TRAIN)]


@INPUTS
def test_replicas_share_the_batches_of_one(records_dir, input, virtual_devices):
    whole = list(train_batches(records_dir, input).as_numpy_iterator())
    strategy = tf.distribute.MirroredStrategy(
        virtual_devices,
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    ds = strategy.experimental_distribute_dataset(
        train_batches(records_dir, input)
    )
    for expected, batch in zip(whole, ds, strict=True):
        for name, part in batch.items():
            halves = strategy.experimental_local_results(part)
            assert [half.shape[0] for half in halves] == [8, 8]
            np.testing.assert_array_equal(
                np.concatenate(halves), expected[name]
            )


def test_orders_of_epochs_and_seeds_do_not_correlate():
    num_patches = 20_000

    def order(seed, epoch):
        stream = pipeline._Order(num_patches, num_patches, seed)
        return stream.patches_of_step(tf.constant(epoch, tf.int64)).numpy()

    orders = [order(0, epoch) for epoch in range(4)]
    orders += [order(seed, 0) for seed in (1, 2, 12345)]
    assert all(len(set(found)) == num_patches for found in orders)
    correlation = np.corrcoef([*orders, np.arange(num_patches)])
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.02


def test_image_files_become_batches(kaggle_tree):
    folder = kaggle_tree / "train"
    paths = sorted(str(path) for path in folder.iterdir())
    files = pipeline.ImageFiles(paths)
    ds = files.eval_batches(batch_size=16)
    images = np.concatenate(
        [batch["image"][batch["mask"]] for batch in ds.as_numpy_iterator()]
    )
    names = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    assert [schema.hash_pixels(image) for image in images] == names
    assert files.faults == []
