"""Damaged shards: named with shard and record, and never read as pixels."""

import os
import shutil

import pytest
import tensorflow as tf
from conftest import open_patches

from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import records_folder, tfrecord

LAYOUT = tfrecord.layout(labeled=True)
SHARD = "pcam-fold1.tfrecord-00000-of-00003"
FOLDS = ("fold0", "fold1")
INPUTS = pytest.mark.parametrize("input", ["mmap", "stream", "device"])
# Of the third record of the shard; the first and last are looked at on opening.
PLACES = pytest.mark.parametrize(
    ("offset", "told"),
    [
        (0, "length field or its CRC"),
        (3, "length field or its CRC"),
        (9, "length field or its CRC"),
        (LAYOUT.image_offset + 1000, "CRC of the data does not match"),
        (LAYOUT.label_offset, "CRC of the data does not match"),
        (LAYOUT.record_bytes - 1, "CRC of the data does not match"),
    ],
    ids=["length", "length_high", "length_crc", "pixel", "label", "crc"],
)


@pytest.fixture
def spoiled_dir(records_dir, tmp_path):
    path = tmp_path / "records"
    shutil.copytree(records_dir, path)
    content = records_folder.open_folder(str(path)).content
    assert content.select(["fold1"])[0].shards[0].num_records > 3
    return path


def flip_bit(path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def read_all(records_dir, input, **options) -> None:
    patches = open_patches(records_dir, input, FOLDS, **options)
    with patch_source.damage_named(patches):
        for _ in patches.eval_batches(batch_size=4):
            pass


@INPUTS
@PLACES
def test_flipped_bit_is_named(spoiled_dir, input, offset, told):
    flip_bit(spoiled_dir / SHARD, 2 * LAYOUT.record_bytes + offset)
    with pytest.raises(tfrecord.DamagedRecordError) as error:
        read_all(spoiled_dir, input)
    assert f"{SHARD}: record 2 (byte {2 * LAYOUT.record_bytes:,})" in str(
        error.value
    )
    assert told in str(error.value)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_stream_does_not_go_on_without_damaged_records(spoiled_dir, cache):
    offset = 2 * LAYOUT.record_bytes + LAYOUT.image_offset
    flip_bit(spoiled_dir / SHARD, offset)
    patches = open_patches(spoiled_dir, "stream", FOLDS, cache=cache)
    found = iter(
        patches.train_batches(batch_size=4, seed=0, first_step=0, num_steps=100)
    )
    num_errors = num_batches = 0
    while num_batches + num_errors < 100:
        try:
            next(found)
            num_batches += 1
        except tf.errors.OpError:
            num_errors += 1
    assert num_errors > 1
    assert num_batches * 4 < patches.num_patches


@INPUTS
@pytest.mark.parametrize("record", ["first", "last"])
def test_ends_of_a_shard_are_looked_at_on_opening(spoiled_dir, input, record):
    path = spoiled_dir / SHARD
    place = 0 if record == "first" else os.path.getsize(path) - 100
    flip_bit(path, place)
    with pytest.raises(tfrecord.DamagedRecordError, match=f"{SHARD}: record"):
        open_patches(spoiled_dir, input, FOLDS)


@INPUTS
@pytest.mark.parametrize("cut", [1, LAYOUT.record_bytes])
def test_shard_cut_short_is_refused_on_opening(spoiled_dir, input, cut):
    path = spoiled_dir / SHARD
    os.truncate(path, os.path.getsize(path) - cut)
    with pytest.raises(
        ValueError, match=rf"{SHARD}: found [\d,]+ bytes, expec"
    ):
        open_patches(spoiled_dir, input, FOLDS)


def test_crc_is_not_looked_at_where_not_wanted(spoiled_dir):
    flip_bit(spoiled_dir / SHARD, 2 * LAYOUT.record_bytes + 1000)
    read_all(spoiled_dir, "mmap", check_crc="never")


def test_damage_in_the_first_epoch_only_is_found_once(records_dir, tmp_path):
    path = tmp_path / "records"
    shutil.copytree(records_dir, path)
    patches = open_patches(path, "mmap", FOLDS)
    ds = patches.eval_batches(batch_size=4)
    list(ds)
    flip_bit(path / SHARD, 2 * LAYOUT.record_bytes + 1000)
    list(ds)  # Read before: the CRC is not computed again.
