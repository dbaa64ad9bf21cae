"""All ways in: every patch once an epoch, in an order that a seed fixes."""

import dataclasses
import os

import loaded
import numpy as np
import pytest
import tables
import tensorflow as tf
from conftest import FOLDS, NUM_TEST, NUM_TRAIN, open_patches

from pcam_tfdata import choices, schema
from pcam_tfdata.distribution import replicas
from pcam_tfdata.pipeline import (
    batch_format,
    device_mode,
    image_files,
    patch_order,
    patch_source,
    stream_mode,
)
from pcam_tfdata.records import manifest, records_folder, tfrecord

WAYS_IN = [name for name in choices.INPUTS if name != "auto"]
INPUTS = pytest.mark.parametrize("input", WAYS_IN)


def train_batches(records_dir, input, **options) -> tf.data.Dataset:
    options = {
        "batch_size": 16, "seed": 3, "first_step": 0, "num_steps": 15,
    } | options  # fmt: skip
    patches = open_patches(records_dir, input)
    return patches.train_batches(**options).map(patches.fill)


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
    patches = open_patches(records_dir, input, ("test", *FOLDS))
    ds = patches.eval_batches(batch_size=batch_size).map(patches.fill)
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
@pytest.mark.parametrize("first_batch", [1, 3, 8])
def test_evaluation_goes_on_from_a_batch(records_dir, input, first_batch):
    patches = open_patches(records_dir, input, ("test", *FOLDS))
    whole = list(patches.eval_batches(batch_size=8).as_numpy_iterator())
    rest = patches.eval_batches(batch_size=8, first_batch=first_batch)
    for expected, batch in zip(
        whole[first_batch:], rest.as_numpy_iterator(), strict=True
    ):
        for name, part in expected.items():
            np.testing.assert_array_equal(batch[name], part)


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


@INPUTS
def test_portions_of_processes_are_the_batches_of_one(records_dir, input):
    patches = open_patches(records_dir, input)
    training = {"seed": 3, "first_step": 2, "num_steps": 9}
    # In evaluation the last batch has 12 patches: the last portion has none.
    for read, options in (
        (patches.train_batches, training),
        (patches.eval_batches, {"first_batch": 1}),
    ):
        whole = read(batch_size=16, **options)
        portions = [
            read(
                batch_size=16, portion=batch_format.Portion(index, 4), **options
            ).as_numpy_iterator()
            for index in range(4)
        ]
        for expected, *parts in zip(
            whole.as_numpy_iterator(), *portions, strict=True
        ):
            for name, part in expected.items():
                found = [portion[name] for portion in parts]
                assert [len(one) for one in found] == [4] * 4
                np.testing.assert_array_equal(np.concatenate(found), part)


def test_portion_knows_which_patches_it_holds(records_dir):
    patches = open_patches(records_dir, "mmap")
    for index in range(4):
        portion = batch_format.Portion(index, 4)
        ds = patches.eval_batches(batch_size=16, portion=portion)
        rows = [batch["row"][batch["mask"]] for batch in ds.as_numpy_iterator()]
        expected = portion.indices_of_all(NUM_TRAIN, 16)
        np.testing.assert_array_equal(np.concatenate(rows), expected)


@INPUTS
def test_portion_is_split_for_the_replicas_of_its_process(
    records_dir, input, virtual_devices
):
    patches = open_patches(records_dir, input)
    # A dataset that is read twice may shuffle anew.
    batches, again = (
        patches.train_batches(
            batch_size=16, seed=3, first_step=0, num_steps=3,
            portion=batch_format.Portion(1, 2),
        )
        for _ in range(2)
    )  # fmt: skip
    mirrored = tf.distribute.MirroredStrategy(
        virtual_devices,
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
    ds = mirrored.distribute_datasets_from_function(
        lambda _: replicas.split(again, 2)
    )
    for expected, batch in zip(batches.as_numpy_iterator(), ds, strict=True):
        for name, part in batch.items():
            halves = mirrored.experimental_local_results(part)
            assert [half.shape[0] for half in halves] == [4, 4]
            np.testing.assert_array_equal(
                np.concatenate(halves), expected[name]
            )


def test_orders_of_epochs_and_seeds_do_not_correlate():
    num_patches = 20_000

    def order_of(seed, epoch):
        return patch_order.patches_of_step(
            tf.constant(epoch, tf.int64),
            patch_order.Steps(num_patches, seed, 0, 1),
            num_patches,
        ).numpy()

    orders = [order_of(0, epoch) for epoch in range(4)]
    orders += [order_of(seed, 0) for seed in (1, 2, 12345)]
    assert all(len(set(found)) == num_patches for found in orders)
    correlation = np.corrcoef([*orders, np.arange(num_patches)])
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.02


def test_orders_of_a_stream_do_not_correlate_if_its_buffer_holds_all(
    tmp_path, monkeypatch
):
    # Records of a byte, which nobody parses: the order is all there is.
    num_files, num_records = 5, 4000
    layout = dataclasses.replace(tfrecord.layout(labeled=True), record_bytes=17)
    monkeypatch.setattr(records_folder.ShardFile, "layout", layout)
    shards = []
    for number in range(num_files):
        path = str(tmp_path / str(number))
        with tf.io.TFRecordWriter(path) as writer:
            for _ in range(num_records):
                writer.write(b"x")
        shards.append(
            records_folder.ShardFile(
                path, "all", num_records, number * num_records, True
            )
        )
    selected = records_folder.Selection(tuple(shards))
    source = patch_source.Source(None, ())
    num_patches = selected.num_patches
    orders = []
    for seed in range(3):
        ds = stream_mode.StreamedPatches(source, selected)._read_shuffled(seed)
        rows = ds.map(lambda row, _: row).batch(num_patches).take(2)
        for epoch in rows.as_numpy_iterator():
            assert len(set(epoch)) == num_patches
            orders.append(np.argsort(epoch))
    correlation = np.corrcoef([*orders, np.arange(num_patches)])
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.02


def test_mmap_and_device_give_the_same_batches(records_dir, monkeypatch):
    monkeypatch.setattr(device_mode, "PIECE_PATCHES", 25)  # Several tensors.
    for one, other in zip(
        train_batches(records_dir, "mmap").as_numpy_iterator(),
        train_batches(records_dir, "device").as_numpy_iterator(),
        strict=True,
    ):
        for name, part in one.items():
            np.testing.assert_array_equal(other[name], part)


@INPUTS
def test_threads_of_its_own_change_no_batch(records_dir, input):
    rows = rows_of(train_batches(records_dir, input))
    patches = open_patches(records_dir, input, input_threads=1)
    ds = patches.train_batches(
        batch_size=16, seed=3, first_step=0, num_steps=15
    )
    assert ds.options().threading.private_threadpool_size == 1
    np.testing.assert_array_equal(rows_of(ds), rows)


def test_batches_that_are_kept_do_not_change(records_dir):
    # Buffers are used again, but not while somebody holds them.
    ds = train_batches(records_dir, "mmap", num_steps=60)
    kept = [batch["image"] for batch in ds]
    for image, batch in zip(
        kept,
        train_batches(records_dir, "mmap", num_steps=60).as_numpy_iterator(),
        strict=True,
    ):
        np.testing.assert_array_equal(image, batch["image"])


@INPUTS
def test_process_may_end_in_the_middle_of_an_epoch(records_dir, input):
    # TensorFlow's threads are in NumPy functions at that moment.
    program = (
        "from pcam_tfdata.pipeline import input_choice, patch_source;"
        "from pcam_tfdata.records import records_folder;"
        f"records = records_folder.open_folder({records_dir!r});"
        f"options = patch_source.InputOptions({input!r});"
        f"source = patch_source.Source(records, {FOLDS}, options);"
        "patches = input_choice.open_patches(source);"
        "batches = iter(patches.train_batches(batch_size=60, seed=0,"
        " first_step=0, num_steps=10**6));"
        "next(batches)"
    )
    for _ in range(2):
        process = loaded.Process(program)
        outputs = process.communicate(timeout=300)
        assert process.returncode == 0, outputs


def test_opening_often_maps_a_shard_once(records_dir):
    def count_maps() -> int:
        with open("/proc/self/maps") as file:
            return sum(records_dir in line for line in file)

    next(iter(train_batches(records_dir, "mmap")))
    once = count_maps()
    for _ in range(5):
        next(iter(train_batches(records_dir, "mmap")))
    assert count_maps() == once > 0


@INPUTS
def test_no_step_is_left(records_dir, input):
    assert not list(train_batches(records_dir, input, first_step=15))
    assert not list(train_batches(records_dir, input, first_step=17))


@INPUTS
def test_datasets_are_made_in_the_scope_of_a_strategy(records_dir, input):
    with tf.distribute.OneDeviceStrategy("/CPU:0").scope():
        batch = next(iter(train_batches(records_dir, input)))
    check_against_sidecar(
        records_dir, {name: part.numpy() for name, part in batch.items()}
    )


@pytest.mark.parametrize("cache", ["memory", "file"])
def test_cached_records_come_once_an_epoch(records_dir, tmp_path, cache):
    path = "memory" if cache == "memory" else str(tmp_path / "cache")
    patches = open_patches(records_dir, "stream", cache=path)
    ds = patches.train_batches(
        batch_size=16, seed=3, first_step=0, num_steps=15
    )
    rows = rows_of(ds).reshape(4, NUM_TRAIN)
    assert (np.sort(rows, axis=1) == np.arange(NUM_TRAIN)).all()
    assert (rows[1] != rows[2]).any()
    assert bool(os.listdir(tmp_path)) == (cache == "file")


def test_remote_records_are_streamed(records_dir):
    pytest.importorskip("fsspec")
    remote = f"file://{records_dir}"  # TensorFlow reads it, as it does gs://.
    for input in ("stream", "auto"):
        for batch in train_batches(remote, input).as_numpy_iterator():
            check_against_sidecar(records_dir, batch)
    with pytest.raises(
        ValueError, match="--input=mmap: found records that are"
    ):
        train_batches(remote, "mmap")


def test_records_that_tensorflow_cannot_read_are_refused(records_dir):
    store = pytest.importorskip("fsspec").filesystem("memory")
    store.put(records_dir, "/stored", recursive=True)
    records = records_folder.open_folder("memory://stored")
    assert records.count_patches(FOLDS) == NUM_TRAIN
    with pytest.raises(ValueError, match="reads no memory:// here"):
        open_patches("memory://stored", "stream")


def test_image_files_become_batches(kaggle_tree):
    folder = kaggle_tree / "train"
    paths = sorted(str(path) for path in folder.iterdir())
    files = image_files.ImageFiles(paths)
    ds = files.eval_batches(batch_size=16)
    images = np.concatenate(
        [batch["image"][batch["mask"]] for batch in ds.as_numpy_iterator()]
    )
    names = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    assert [schema.hash_pixels(image) for image in images] == names
    assert files.faults == []
