"""Damage is found and named, with shard and record."""

import os
import pathlib
import shutil

import numpy as np
import pytest

from pcam_tfdata.records import (
    manifest,
    records_folder,
    tfrecord,
    verify,
)


@pytest.fixture
def copy(records_dir, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(records_dir, tmp_path / "copy"))


def shard_of(folder: pathlib.Path) -> tuple[pathlib.Path, manifest.Split]:
    split = records_folder.open_folder(str(folder)).content.splits[1]
    return folder / split.shards[0].name, split


def test_sound_records_have_no_fault(records_dir):
    assert verify.verify(records_dir, num_workers=2) == []


def test_flipped_bit_names_shard_and_record(copy):
    path, split = shard_of(copy)
    data = bytearray(path.read_bytes())
    data[2 * split.layout.record_bytes + 9_999] ^= 1
    path.write_bytes(data)
    problems = "\n".join(verify.verify(str(copy), num_workers=1))
    assert f"{path}: record 2 (byte 55,574): CRC of the data" in problems
    assert f"{path}: found SHA-256" in problems


def test_cut_file_names_shard_and_record(copy):
    path, split = shard_of(copy)
    os.truncate(path, 3 * split.layout.record_bytes - 5)
    problems = "\n".join(verify.verify(str(copy), num_workers=1))
    assert f"{path}: found 83,356 bytes, expected" in problems
    assert f"{path}: record 2 (byte 55,574): found 27,782 bytes" in problems


def test_lost_file_is_named(copy):
    path, _ = shard_of(copy)
    path.unlink()
    problems = verify.verify(str(copy), num_workers=1)
    assert any(p.startswith(f"{path}: not found, expected") for p in problems)


def test_swapped_records_disagree_with_the_sidecar(copy):
    path, split = shard_of(copy)
    size = split.layout.record_bytes
    data = path.read_bytes()
    path.write_bytes(data[size : 2 * size] + data[:size] + data[2 * size :])
    problems = "\n".join(verify.verify(str(copy), num_workers=1))
    assert f"{path}: record 0 (byte 0): found id" in problems
    assert "the sidecar says" in problems


def test_id_that_is_no_hash_is_named(copy):
    shard = records_folder.open_folder(str(copy)).list_shards(["fold1"])[0]
    data = bytearray(pathlib.Path(shard.path).read_bytes())
    image = tfrecord.view_images(shard.map()[:1], shard.layout)
    data[: shard.layout.record_bytes] = tfrecord.encode(
        np.array([b"0" * 40]), image, np.array([0]), np.array([0.0])
    ).tobytes()
    pathlib.Path(shard.path).write_bytes(data)
    problems = "\n".join(verify.verify(str(copy), num_workers=1))
    assert f"{shard.path}: record 0 (byte 0): id 000000" in problems
    assert "is not the SHA-1 of the pixels" in problems


@pytest.mark.parametrize(
    "name", ["patches.csv", "dataset_info.json", "features.json"]
)
def test_files_beside_the_shards_are_checked(copy, name):
    text = (copy / name).read_text()
    (copy / name).write_text(f"{text} ")
    problems = verify.verify(str(copy), num_workers=1)
    assert any(f"{name}: found SHA-256" in line for line in problems)
    (copy / name).unlink()
    problems = verify.verify(str(copy), num_workers=1)
    assert f"{copy / name}: not found. Convert again." in problems


def test_file_that_does_not_belong_is_named(copy):
    (copy / "pcam-fold9.tfrecord-00000-of-00001").write_bytes(b"x")
    (problem,) = verify.verify(str(copy), num_workers=1)
    assert "pcam-fold9" in problem
    assert "the manifest does not name" in problem


def test_damaged_manifest_is_refused(copy):
    (copy / "manifest.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"manifest.json: found a manifest that cannot be used"
    ):
        verify.verify(str(copy))
