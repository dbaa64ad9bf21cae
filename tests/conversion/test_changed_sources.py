"""A job that goes on after its source was changed mixes nothing old in."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from conftest import convert_folder
from PIL import Image
from source_files import pack, read_split, write_dataset, write_h5

from pcam_tfdata import schema
from pcam_tfdata.conversion import plan, publish, write_shard
from pcam_tfdata.records import manifest
from pcam_tfdata.sources import catalog, listing
from pcam_tfdata.synthetic import kaggle_folder
from pcam_tfdata.system import versions

NUM_PATCHES = 12


@pytest.fixture(scope="module")
def patches():
    return kaggle_folder.make_patches(2 * NUM_PATCHES)


def write_official(folder, patches, start, *, packed=False) -> None:
    folder.mkdir(exist_ok=True)
    rows = slice(start, start + NUM_PATCHES)
    label = patches.label[rows].reshape(-1, 1, 1, 1)
    write_h5(folder, "train_x", "x", patches.image[rows])
    write_h5(folder, "train_y", "y", label)
    for path in folder.glob("*.h5") if packed else ():
        pack(path)


def write_packed(folder, patches, start) -> None:
    write_official(folder, patches, start, packed=True)


def write_images(folder, patches, start) -> None:
    """Writes patches as files of one size, with one time."""
    for number in range(NUM_PATCHES):
        path = folder / "train" / str(number % 2) / f"p{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(patches.image[start + number]).save(path)
        os.utime(path, (1e9, 1e9))


def write_prepared(folder, patches, start) -> None:
    """Writes a TensorFlow dataset, or another one in its place."""
    images = patches.image[start : start + NUM_PATCHES]
    examples = [{"pixels": i, "label": n % 2} for n, i in enumerate(images)]
    shutil.rmtree(folder, ignore_errors=True)
    written = write_dataset(folder, "all", {"train": examples})
    written.rename(folder / "1.2.3")


def run(kind, folder, output_dir) -> None:
    if kind == "tfds":
        folder = folder / "1.2.3"
    convert_folder(
            str(folder), str(output_dir), source=kind, num_workers=1,
            shard_megabytes=0.1,
)  # fmt: skip


def stop(monkeypatch, kind, folder, output_dir) -> None:
    """Ends a job whose shards are all written."""

    def end(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publish, "put_into_place", end)
        run(kind, folder, output_dir)
    assert list_shards(f"{output_dir}.incomplete/records")


def list_shards(folder) -> dict[str, tuple[str, int]]:
    """Returns the hash of each shard, and when it was written."""
    return {
        path.name: (manifest.hash_file(str(path)), path.stat().st_mtime_ns)
        for path in pathlib.Path(folder).glob("*-of-?????")
    }


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        ("hdf5", write_official),
        ("hdf5", write_packed),
        ("folder", write_images),
        pytest.param("tfds", write_prepared, marks=pytest.mark.tensorflow),
    ],
    ids=["hdf5", "packed hdf5", "folder", "tfds"],
)
def test_source_that_was_replaced_is_read_anew(
    patches, tmp_path, monkeypatch, kind, write
):
    source, output_dir = tmp_path / "source", tmp_path / "records"
    write(source, patches, 0)
    stop(monkeypatch, kind, source, output_dir)
    write(source, patches, NUM_PATCHES)
    run(kind, source, output_dir)
    images, _, _ = read_split(output_dir, "train")
    assert sorted(map(schema.hash_pixels, images)) == sorted(
        map(schema.hash_pixels, patches.image[NUM_PATCHES:])
    )


@pytest.mark.parametrize(
    ("kind", "write"),
    [("hdf5", write_packed), ("folder", write_images)],
    ids=["hdf5", "folder"],
)
def test_source_that_stayed_is_not_read_again(
    patches, tmp_path, monkeypatch, kind, write
):
    write(tmp_path / "source", patches, 0)
    output_dir = tmp_path / "records"
    stop(monkeypatch, kind, tmp_path / "source", output_dir)
    before = list_shards(f"{output_dir}.incomplete/records")
    run(kind, tmp_path / "source", output_dir)
    assert list_shards(output_dir) == before


def test_shard_depends_on_what_decodes_it(monkeypatch):
    empty = np.array([], "S1")
    images = listing.ImageFiles("", empty, empty)
    patches = listing.Listing("train", np.array([], np.int8), empty, images)
    task = write_shard.ShardTask("path", "train", patches, None)
    before = task.fingerprint()
    found = versions.of_conversion()
    for name in found:
        write_shard._name_code.cache_clear()
        monkeypatch.setattr(
            versions, "of_conversion", lambda name=name: found | {name: "0"}
        )
        assert task.fingerprint() != before
    write_shard._name_code.cache_clear()


def plan_of_bucket(url: str) -> tuple[str, list[str]]:
    """Returns the fingerprints of a plan, and those of its shards."""
    listings, _ = catalog.list_patches(listing.SourceOptions("folder", url))
    splits = plan.plan_splits(
        listings, [None] * len(listings), num_folds=2, seed=0, shard_bytes=90000
    )
    tasks = [task for split in splits for task in split.list_tasks("")]
    return (
        write_shard.fingerprint_all(tasks),
        [task.fingerprint() for task in tasks],
    )


def test_plan_of_a_bucket_takes_what_its_listing_tells(monkeypatch):
    """To ask for each file would take hours of a large bucket."""
    store = pytest.importorskip("fsspec").filesystem("memory")
    for number in range(12):
        path = f"/plan/train/{number % 2}/p{number}.png"
        store.pipe(path, b"image")

    def refuse(self, path, **_):
        raise AssertionError(f"{path} was asked for by itself")

    whole, parts = plan_of_bucket("memory://plan")
    with monkeypatch.context() as patch:
        info = type(store).info
        patch.setattr(type(store), "modified", refuse)
        patch.setattr(
            type(store),
            "info",
            lambda self, path, **options: (
                refuse(self, path)
                if path.endswith(".png")
                else info(self, path, **options)
            ),
        )
        assert plan_of_bucket("memory://plan") == (whole, parts)
    assert len(set(parts)) == len(parts) > 3
    store.pipe("/plan/train/1/p7.png", b"other")  # Of the same size.
    changed, parts_after = plan_of_bucket("memory://plan")
    assert changed != whole
    assert len(set(parts) - set(parts_after)) == 1
