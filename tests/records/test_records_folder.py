"""A records folder that is opened once: manifest, shards and sidecar."""

import pathlib
import shutil

import numpy as np
import pytest
import tables

from pcam_tfdata import schema
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.system import csv_files


@pytest.fixture(scope="module")
def opened(records_dir) -> records_folder.RecordsFolder:
    return records_folder.open_folder(records_dir)


def test_hash_names_the_manifest(opened, records_dir):
    path = f"{records_dir}/{manifest.MANIFEST_FILE}"
    assert opened.manifest_sha256 == manifest.hash_file(path)


def test_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a records folder"):
        records_folder.open_folder(str(tmp_path))


def test_rows_go_on_from_shard_to_shard(opened):
    shards = opened.list_shards()
    assert [shard.first_row for shard in shards] == [
        0, *(shard.end_row for shard in shards[:-1])
    ]  # fmt: skip
    assert shards[-1].end_row == opened.num_patches


def test_patches_of_a_selection_are_those_of_their_ids(opened):
    patches = opened.select_patches(["test", "fold1"])
    wanted = np.array([patches.num_patches - 1, 0, 3, 0])
    rows = [
        patches.shards[shard].first_row + record
        for shard, record in zip(*patches.locate(wanted), strict=True)
    ]
    images = patches.read_images(wanted)
    hashes = [schema.hash_pixels(image) for image in images]
    assert hashes == opened.read_sidecar(["id"])["id"].iloc[rows].tolist()
    assert patches.read_images(wanted[:0]).shape == (0, 96, 96, 3)


def test_labels_are_counted(opened):
    splits = opened.content.select(["fold1", "test"])
    expected = [splits[0].class_counts[label] for label in ("0", "1")]
    assert list(opened.count_labels(["fold1", "test"])) == expected
    assert opened.count_patches(["fold1"]) == sum(expected)


def test_slides_are_those_of_the_rows(opened):
    slide = opened.read_sidecar(["slide"])["slide"]
    first = opened.content.first_row("test")
    assert (slide[:first] != "").all()
    assert (slide[first:] == "").all()
    rows = tables.read_csv(opened.sidecar_path, ("row", "slide"))
    assert slide[17] == dict(rows)["17"]


def test_blocks_of_the_sidecar_are_its_rows(opened, monkeypatch):
    whole = opened.read_sidecar(["id", "source_name"])
    monkeypatch.setattr(records_folder, "_BLOCK_ROWS", 7)
    blocks = list(opened.iterate_sidecar(["id", "source_name"]))
    assert len(blocks) > 1
    assert [n for block in blocks for n in block.index] == list(whole.index)
    assert opened.read_sidecar(["id", "source_name"]).equals(whole)


def test_names_of_any_kind_come_back(tmp_path, records_dir):
    copy = pathlib.Path(shutil.copytree(records_dir, tmp_path / "copy"))
    names = ["NA", "", "a,b", 'a"b', "a\nb", "a\rb", " a ", "0012"]
    opened = records_folder.open_folder(str(copy))
    csv_files.write_csv(
        opened.sidecar_path, ("id", "source_name"), [("x", n) for n in names]
    )
    content = opened.content
    content.file_sha256[manifest.SIDECAR_FILE] = manifest.hash_file(
        opened.sidecar_path
    )
    assert opened.read_sidecar(["source_name"])["source_name"].tolist() == names


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: lines[:1],
    ],
    ids=["short", "swapped", "empty"],
)
def test_sidecar_of_other_records_is_refused(records_dir, tmp_path, change):
    copy = pathlib.Path(shutil.copytree(records_dir, tmp_path / "copy"))
    path = copy / manifest.SIDECAR_FILE
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(change(lines)))
    with pytest.raises(ValueError, match=r"patches\.csv: found SHA-256 .* Run"):
        records_folder.open_folder(str(copy)).read_sidecar(["slide"])
