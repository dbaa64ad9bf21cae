"""Conversion: what goes in comes out, and the same each time."""

import csv
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tables
from conftest import NUM_SLIDES, NUM_TEST, NUM_TRAIN, convert_folder
from PIL import Image

from pcam_tfdata import schema
from pcam_tfdata.images import tiff
from pcam_tfdata.records import manifest, records_folder, verify
from pcam_tfdata.system import csv_files, faults


def run(tree, output_dir, **options) -> manifest.Manifest:
    options = {"shard_megabytes": 0.2, "num_workers": 1} | options
    return convert_folder(str(tree), str(output_dir), **options)


def read_examples(records_dir) -> list[dict]:
    import tensorflow as tf  # Here, because most tests do without.

    features = {
        "id": tf.io.FixedLenFeature([], tf.string),
        "image": tf.io.FixedLenFeature([], tf.string),
        "label": tf.io.FixedLenFeature([], tf.int64),
        "tumor_fraction": tf.io.FixedLenFeature([], tf.float32),
    }
    paths = [
        os.path.join(records_dir, shard.name)
        for split in records_folder.open_folder(str(records_dir)).content.splits
        for shard in split.shards
    ]
    ds = tf.data.TFRecordDataset(paths).batch(512)
    ds = ds.map(lambda batch: tf.io.parse_example(batch, features)).unbatch()
    return list(ds.as_numpy_iterator())


def read_sidecar(records_dir) -> list[dict[str, str]]:
    with open(os.path.join(records_dir, "patches.csv"), newline="") as file:
        return list(csv.DictReader(file))


def hash_folder(folder) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in pathlib.Path(folder).iterdir()
    }


@pytest.mark.tensorflow
def test_parse_example_reads_back_every_patch(records_dir):
    examples, rows = read_examples(records_dir), read_sidecar(records_dir)
    assert len(examples) == len(rows) == NUM_TRAIN + NUM_TEST
    for number, (example, row) in enumerate(zip(examples, rows, strict=True)):
        assert row["row"] == str(number)
        digest = hashlib.sha1(example["image"]).hexdigest()
        assert digest == example["id"].decode() == row["id"]
        assert str(example["label"]) == row["label"]
        assert np.isnan(example["tumor_fraction"])


@pytest.mark.tensorflow
def test_tfds_reads_back_every_patch(records_dir):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(records_dir)
    sizes = {n: s.num_examples for n, s in builder.info.splits.items()}
    assert sum(sizes.values()) == NUM_TRAIN + NUM_TEST
    for split in ("fold0", "fold1+fold2", "fold3[:50%]", "test"):
        for example in tfds.as_numpy(builder.as_dataset(split=split)):
            digest = schema.hash_pixels(example["image"])
            assert digest.encode() == example["id"]
            assert (example["label"] == -1) == (split == "test")


@pytest.mark.tensorflow
def test_real_patches_read_back_through_both(kaggle_sample, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    run(kaggle_sample, tmp_path / "records", shard_megabytes=5)
    labels = dict(
        tables.read_csv(
            str(kaggle_sample / "train_labels.csv"), ("id", "label")
        )
    )
    plain = read_examples(tmp_path / "records")
    builder = tfds.builder_from_directory(str(tmp_path / "records"))
    theirs = [
        example
        for split in builder.info.splits
        for example in tfds.as_numpy(
            builder.as_dataset(split=split, shuffle_files=False)
        )
    ]
    assert len(plain) == len(theirs) == 2_529
    for example in (*plain, *theirs):
        image = np.frombuffer(bytes(example["image"]), np.uint8)
        digest = hashlib.sha1(image).hexdigest()
        assert digest == example["id"].decode()
        assert str(example["label"]) == labels.get(digest, "-1")


def test_folds_keep_slides_together(records_dir):
    folds = {}
    for row in read_sidecar(records_dir):
        if row["split"] != "test":
            folds.setdefault(row["slide"], set()).add(row["split"])
    assert len(folds) == NUM_SLIDES
    assert all(len(found) == 1 for found in folds.values())


def test_test_split_follows_the_sample_submission(kaggle_tree, tmp_path):
    path = str(kaggle_tree / "sample_submission.csv")
    backwards = tables.read_csv(path, ("id", "label"))[::-1]
    csv_files.write_csv(path, ("id", "label"), backwards)
    run(kaggle_tree, tmp_path / "records")
    rows = read_sidecar(tmp_path / "records")
    found = [row["source_name"] for row in rows if row["split"] == "test"]
    assert found == [name for name, _ in backwards]


def test_workers_and_file_order_change_no_byte(
    kaggle_tree, tmp_path, monkeypatch
):
    run(kaggle_tree, tmp_path / "one")
    for number in (2, 3):
        run(kaggle_tree, tmp_path / f"{number}", num_workers=number)
    list_dir = os.listdir

    def shuffled(path):
        names = sorted(list_dir(path))
        np.random.default_rng(3).shuffle(names)
        return names

    monkeypatch.setattr(os, "listdir", shuffled)
    labels_path = str(kaggle_tree / "train_labels.csv")
    rows = tables.read_csv(labels_path, ("id", "label"))
    csv_files.write_csv(labels_path, ("id", "label"), rows[::-1])
    run(kaggle_tree, tmp_path / "shuffled")
    expected = hash_folder(tmp_path / "one")
    for other in ("2", "3", "shuffled"):
        assert hash_folder(tmp_path / other) == expected


def test_seed_deals_other_folds(kaggle_tree, tmp_path):
    run(kaggle_tree, tmp_path / "a")
    run(kaggle_tree, tmp_path / "b", seed=1)
    splits = [
        {row["id"]: row["split"] for row in read_sidecar(tmp_path / name)}
        for name in "ab"
    ]
    assert splits[0] != splits[1]


@pytest.mark.tensorflow
def test_manifest_has_exact_statistics(records_dir):
    examples = read_examples(records_dir)
    (test,) = records_folder.open_folder(records_dir).content.select(["test"])
    pixels = np.stack(
        [
            np.frombuffer(example["image"], np.uint8).reshape(-1, 3)
            for example in examples[-NUM_TEST:]
        ]
    ).reshape(-1, 3)
    np.testing.assert_allclose(test.channel_mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(test.channel_std, pixels.std(0), rtol=1e-9)
    assert test.class_counts == {"-1": NUM_TEST}


def test_manifest_names_no_path_and_no_date(records_dir):
    with open(os.path.join(records_dir, "manifest.json")) as file:
        text = file.read()
    assert "/" not in text
    assert json.loads(text)["options"]["grouped_by_slide"] is True


def test_files_saved_again_give_the_same_records(kaggle_tree, tmp_path):
    run(kaggle_tree, tmp_path / "a")
    for path in (kaggle_tree / "train").iterdir():
        Image.fromarray(tiff.read(str(path))).save(path, "TIFF")
    run(kaggle_tree, tmp_path / "b")
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")


def test_tables_as_people_have_them_give_the_same_records(
    kaggle_tree, tmp_path
):
    run(kaggle_tree, tmp_path / "a")
    for table in ("train_labels.csv", "sample_submission.csv"):
        path = kaggle_tree / table
        rows = tables.read_csv(str(path), ("id", "label"))
        lines = [f"{name.upper()},{label}.0" for name, label in rows[1:]]
        first = f"{rows[0][0]}.tif,{rows[0][1]}"
        lines = ["Id,Label", first, *lines, first, " , ", ","]
        path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    run(kaggle_tree, tmp_path / "b")
    assert hash_folder(tmp_path / "a") == hash_folder(tmp_path / "b")


def rename_by_number(tree: pathlib.Path) -> None:
    """Gives every patch a name that is no hash."""
    for split, table in (
        ("train", "train_labels.csv"),
        ("test", "sample_submission.csv"),
    ):
        rows = tables.read_csv(str(tree / table), ("id", "label"))
        for number, (name, _) in enumerate(rows):
            path = tree / split / f"{name}.tif"
            path.rename(path.with_name(f"{split}_{number}.tif"))
        renamed = [(f"{split}_{n}", row[1]) for n, row in enumerate(rows)]
        csv_files.write_csv(str(tree / table), ("id", "label"), renamed)


def test_names_that_are_no_hashes_are_kept_beside_hashes(
    kaggle_tree, tmp_path, caplog
):
    rename_by_number(kaggle_tree)
    with caplog.at_level("INFO", "pcam_tfdata"):
        run(kaggle_tree, tmp_path / "records")
    assert "Records have hashes for ids, and the source's" in caplog.text
    assert verify.verify(str(tmp_path / "records"), num_workers=1) == []
    names = {row["source_name"] for row in read_sidecar(tmp_path / "records")}
    assert {"train_0", f"train_{NUM_TRAIN - 1}", "test_0"} <= names
    with pytest.raises(faults.BadInputError, match="found pixels with SHA-1"):
        run(kaggle_tree, tmp_path / "never", check_ids="always")


def test_names_are_never_checked_if_so_told(kaggle_tree, tmp_path):
    path = min((kaggle_tree / "train").iterdir())
    image = tiff.read(str(path)).copy()
    image[0, 0, 0] ^= 1
    path.write_bytes(tiff.encode(image))
    with pytest.raises(faults.BadInputError, match="found pixels with SHA-1"):
        run(kaggle_tree, tmp_path / "auto")
    run(kaggle_tree, tmp_path / "never", check_ids="never")
    ids = {r["source_name"]: r["id"] for r in read_sidecar(tmp_path / "never")}
    assert ids[path.stem] == schema.hash_pixels(image)


def test_names_like_hashes_of_other_pixels_are_warned_of(
    kaggle_tree, tmp_path, caplog
):
    for path in (*kaggle_tree.glob("train/*"), *kaggle_tree.glob("test/*")):
        image = np.ascontiguousarray(tiff.read(str(path))[..., ::-1])
        path.write_bytes(tiff.encode(image))
    with caplog.at_level("INFO", "pcam_tfdata"):
        run(kaggle_tree, tmp_path / "records")
    assert "67 ids are written as a SHA-1 and none is that" in caplog.text


def test_equal_pixels_share_a_fold_and_leaks_are_named(
    kaggle_tree, tmp_path, caplog
):
    rename_by_number(kaggle_tree)
    copies = [f"copy_{n}" for n in range(20)]
    labels_path = str(kaggle_tree / "train_labels.csv")
    rows = tables.read_csv(labels_path, ("id", "label"))
    train = kaggle_tree / "train"
    for number, copy in enumerate(copies):
        source = (train / f"train_{number}.tif").read_bytes()
        (train / f"{copy}.tif").write_bytes(source)
        rows.append((copy, rows[number][1]))
    csv_files.write_csv(labels_path, ("id", "label"), rows)
    (kaggle_tree / "test" / "test_0.tif").write_bytes(source)
    with caplog.at_level("INFO", "pcam_tfdata"):
        run(kaggle_tree, tmp_path / "records")
    assert "the pixels of 1 test patches are in train too" in caplog.text
    splits = {}
    for row in read_sidecar(tmp_path / "records"):
        if row["split"] != "test":
            splits.setdefault(row["id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_skipping_leaves_out_the_bad_and_lists_them(kaggle_tree, tmp_path):
    names = sorted(path.stem for path in (kaggle_tree / "train").iterdir())
    bad = kaggle_tree / "train" / f"{names[0]}.tif"
    bad.write_bytes(b"no image")
    (kaggle_tree / "train" / f"{names[1]}.tif").unlink()
    made = run(kaggle_tree, tmp_path / "records", on_bad_patch="skip")
    assert sum(split.num_records for split in made.splits) == (
        NUM_TRAIN + NUM_TEST - 2
    )
    skipped = tables.read_csv(
        str(tmp_path / "records" / "skipped.csv"), ("name", "reason")
    )
    assert {name for name, _ in skipped} == set(names[:2])
    assert verify.verify(str(tmp_path / "records"), num_workers=1) == []


def test_skipping_a_whole_test_split_leaves_the_folds(kaggle_tree, tmp_path):
    for path in (kaggle_tree / "test").iterdir():
        path.write_bytes(b"no image")
    made = run(kaggle_tree, tmp_path / "records", on_bad_patch="skip")
    assert [split.name for split in made.splits] == [
        f"fold{n}" for n in range(5)
    ]


@pytest.mark.parametrize("scheme", ["file", "local"])
def test_url_of_a_disk_is_no_output(kaggle_tree, tmp_path, scheme):
    pytest.importorskip("fsspec")
    output_dir = tmp_path / "records"
    with pytest.raises(ValueError, match=f"Pass --output_dir={output_dir}."):
        run(kaggle_tree, f"{scheme}://{output_dir}")
    assert not output_dir.exists()
    run(f"{scheme}://{kaggle_tree}", output_dir)
    assert verify.verify(str(output_dir), num_workers=1) == []


def test_overwrite_replaces_a_finished_output(kaggle_tree, tmp_path):
    run(kaggle_tree, tmp_path / "records")
    made = run(kaggle_tree, tmp_path / "records", num_folds=2, overwrite=True)
    assert [split.name for split in made.splits] == ["fold0", "fold1", "test"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["kaggle", "records"]
    assert verify.verify(str(tmp_path / "records"), num_workers=1) == []


def test_conversion_imports_no_tensorflow():
    code = (
        "import sys\n"
        "from pcam_tfdata.conversion import convert, write_shard\n"
        "from pcam_tfdata.system import workers\n"
        "from pcam_tfdata.cli import convert_to_tfrecords, main\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
