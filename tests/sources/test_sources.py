"""Sources other than Kaggle's folder: what is there comes out as records."""

import csv
import gzip
import pathlib
import re
import shutil

import h5py
import numpy as np
import pytest
from conftest import convert_folder, run_pcam
from PIL import Image
from source_files import PREFIX, pack, read_split, write_dataset, write_h5

from pcam_tfdata import schema
from pcam_tfdata.audit import audit_report, job
from pcam_tfdata.records import manifest, verify
from pcam_tfdata.sources import catalog, listing
from pcam_tfdata.synthetic import kaggle_folder

SIZES = {"train": 23, "valid": 9, "test": 7}


def run(source, input_dir, output_dir, **options) -> manifest.Manifest:
    options = {"shard_megabytes": 0.2, "num_workers": 1} | options
    return convert_folder(
        str(input_dir), str(output_dir), source=source, **options
    )


def read_sidecar(records_dir, split) -> list[dict[str, str]]:
    with open(records_dir / "patches.csv", newline="") as file:
        return [r for r in csv.DictReader(file) if r["split"] == split]


# Made-up patches, of which more is known than Kaggle tells.


def test_tumor_fractions_beside_slides_become_those_of_records(tmp_path):
    tree = tmp_path / "kaggle"
    kaggle_folder.write_kaggle_tree(
        str(tree), num_train=12, num_test=3, num_workers=1
    )
    truth = tree / "truth.csv"
    records_dir = tmp_path / "records"
    run("kaggle", tree, records_dir, slide_csv=str(truth), num_folds=1)
    with open(truth, newline="") as file:
        known = {
            row["id"]: row["tumor_fraction"] for row in csv.DictReader(file)
        }
    rows = read_sidecar(records_dir, "fold0")
    _, labels, fractions = read_split(records_dir, "fold0")
    expected = [float(known[row["source_name"]]) for row in rows]
    np.testing.assert_allclose(fractions, expected, rtol=1e-6)
    np.testing.assert_array_equal(fractions > 0, labels)
    assert np.isnan(read_split(records_dir, "test")[2]).all()


# The official files.


@pytest.fixture(scope="module")
def patches():
    return kaggle_folder.make_patches(max(SIZES.values()))


@pytest.fixture
def official(tmp_path, patches) -> pathlib.Path:
    folder = tmp_path / "pcam"
    folder.mkdir()
    for number, (split, size) in enumerate(SIZES.items()):
        write_split(folder, split, patches, size, number)
    return folder


def write_split(folder, split, patches, size, seed) -> None:
    draw = np.random.default_rng(seed)
    mask = np.zeros((size, 96, 96, 1), np.uint8)
    label = patches.label[:size]
    for row in np.flatnonzero(label):
        mask[row, 40 : 40 + draw.integers(1, 9), 40:48] = 1
    mask[:, :10] = 1  # Outside of the centre.
    write_h5(folder, f"{split}_x", "x", patches.image[:size])
    write_h5(folder, f"{split}_y", "y", label.reshape(-1, 1, 1, 1))
    write_h5(folder, f"{split}_mask", "mask", mask)
    with open(folder / f"{PREFIX}{split}_meta.csv", "w") as file:
        file.write(",coord_y,coord_x,tumor_patch, Center_Tumor_Patch,wsi\n")
        for row in range(size):
            place, is_tumor = f"{row},{row * 7},{row * 5}", bool(label[row])
            file.write(f"{place},True,{is_tumor},slide_{row % 3}\n")


def read_h5(folder, part, name):
    with h5py.File(folder / f"{PREFIX}{part}.h5") as file:
        return file[name][:]


def test_official_splits_stay_in_their_order(official, tmp_path):
    made = run("hdf5", official, tmp_path / "records", num_workers=2)
    sizes = {split.name: split.num_records for split in made.splits}
    assert sizes == {"train": 23, "validation": 9, "test": 7}
    assert verify.verify(str(tmp_path / "records"), num_workers=1) == []
    for theirs, ours in (("train", "train"), ("valid", "validation")):
        images, labels, fraction = read_split(tmp_path / "records", ours)
        expected = read_h5(official, f"{theirs}_x", "x")
        np.testing.assert_array_equal(images, expected)
        expected = read_h5(official, f"{theirs}_y", "y").ravel()
        np.testing.assert_array_equal(labels, expected)
        mask = read_h5(official, f"{theirs}_mask", "mask")
        expected = mask[:, 32:64, 32:64, 0].mean((1, 2))
        np.testing.assert_allclose(fraction, expected, rtol=1e-6)
        np.testing.assert_array_equal(fraction > 0, labels == 1)


def test_meta_gives_slides_and_coordinates(official, tmp_path):
    run("hdf5", official, tmp_path / "records")
    rows = read_sidecar(tmp_path / "records", "validation")
    assert [row["source_name"] for row in rows[:2]] == [
        "validation_0", "validation_1",
    ]  # fmt: skip
    assert [(r["slide"], r["x"], r["y"]) for r in rows[:4]] == [
        ("slide_0", "0", "0"), ("slide_1", "5", "7"), ("slide_2", "10", "14"),
        ("slide_0", "15", "21"),
    ]  # fmt: skip


def change_labels(official, split, num_changed) -> None:
    labels = read_h5(official, f"{split}_y", "y")
    labels[:num_changed] = 1 - labels[:num_changed]
    write_h5(official, f"{split}_y", "y", labels)


@pytest.mark.parametrize(
    ("removed", "named"),
    [("meta", "the masks"), ("mask", "center_tumor_patch in the meta file")],
)
def test_labels_that_contradict_what_is_beside_them_are_refused(
    official, tmp_path, caplog, removed, named
):
    for path in official.glob(f"*_{removed}.*"):
        path.unlink()
    change_labels(official, "train", 4)
    change_labels(official, "test", 3)
    told = f"found 7 labels that contradict {named} (train 4, test 3)"
    with pytest.raises(ValueError, match=re.escape(told)) as caught:
        run("hdf5", official, tmp_path / "records")
    assert "--on_label_mismatch=warn" in str(caught.value)
    assert not (tmp_path / "records").exists()
    run("hdf5", official, tmp_path / "records", on_label_mismatch="warn")
    assert told in caplog.text
    assert verify.verify(str(tmp_path / "records"), num_workers=1) == []


def test_exchanged_labels_are_refused(official, patches, tmp_path):
    """Those of validation and test, which are of one size."""
    write_split(official, "test", patches, SIZES["valid"], 0)
    paths = [official / f"{PREFIX}{part}_y.h5" for part in ("valid", "test")]
    change_labels(official, "test", SIZES["valid"])
    with h5py.File(official / f"{PREFIX}test_mask.h5", "a") as file:
        has_tumor = read_h5(official, "test_y", "y").reshape(-1, 1, 1, 1)
        file["mask"][:] = np.broadcast_to(has_tumor, file["mask"].shape)
    without_meta(official)
    run("hdf5", official, tmp_path / "sound")
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content)
    told = "found 18 labels that contradict the masks (validation 9, test 9)"
    with pytest.raises(ValueError, match=re.escape(told)):
        run("hdf5", official, tmp_path / "records")


def test_few_contradictions_are_told_and_kept(official, tmp_path, caplog):
    change_labels(official, "valid", 5)
    run("hdf5", official, tmp_path / "records")
    told = "found 5 labels that contradict {} (validation 5)"
    assert told.format("the masks") in caplog.text
    assert told.format("center_tumor_patch in the meta file") in caplog.text
    report = job.audit_folders(str(tmp_path / "records"), num_workers=1)
    kind = audit_report.Kind.MASK_CONFLICT
    (found,) = (f for f in report.findings if f.kind == kind)
    assert (found.gravity, found.where) == ("conflict", {"validation": 5})
    assert found.text.startswith("5 of 39 labels contradict")
    first = 23  # Rows of train.
    rows = [
        patch.row for example in found.examples for patch in example.patches
    ]
    assert rows == list(range(first, first + 5))


def test_labels_that_fit_are_not_told(official, tmp_path, caplog):
    run("hdf5", official, tmp_path / "records")
    assert "contradict" not in caplog.text
    report = job.audit_folders(str(tmp_path / "records"), num_workers=1)
    kind = audit_report.Kind.MASK_CONFLICT
    assert kind not in {found.kind for found in report.findings}
    assert kind.heading in report.not_found


def test_killed_conversion_still_counts_contradictions(official, tmp_path):
    remaining = tmp_path / "records.incomplete" / "records"
    change_labels(official, "train", 6)
    for _ in range(2):  # The second finds all shards finished.
        with pytest.raises(ValueError, match="found 6 labels that contradict"):
            run("hdf5", without_meta(official), tmp_path / "records")
        assert list(remaining.glob("*.journal"))


def without_meta(official) -> pathlib.Path:
    for path in official.glob("*_meta.csv"):
        path.unlink()
    return official


def test_gzipped_files_give_the_same_records(official, tmp_path):
    run("hdf5", official, tmp_path / "plain")
    for path in official.glob("*.h5"):
        pack(path)
    run("hdf5", official, tmp_path / "gz")
    assert hash_all(tmp_path / "plain") == hash_all(tmp_path / "gz")
    assert not (tmp_path / "gz.incomplete").exists()


def test_damaged_gzip_is_named(official, tmp_path):
    path = next(official.glob("*train_x.h5"))
    sound = gzip.compress(path.read_bytes())
    path.unlink()
    options = listing.SourceOptions(
        "hdf5", str(official), unpacked_dir=str(tmp_path / "unpacked")
    )
    for place in range(20, len(sound), len(sound) // 40):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << place % 8
        pathlib.Path(f"{path}.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"train_x.h5.gz: found no whole"):
            catalog.list_patches(options)


def hash_all(folder) -> dict[str, str]:
    return {p.name: manifest.hash_file(str(p)) for p in folder.iterdir()}


def test_without_mask_and_meta_nothing_is_made_up(official, tmp_path):
    for path in (*official.glob("*mask*"), *official.glob("*meta*")):
        path.unlink()
    for path in official.glob("*_test_*"):
        path.unlink()
    made = run("hdf5", official, tmp_path / "records")
    assert [split.name for split in made.splits] == ["train", "validation"]
    assert np.isnan(read_split(tmp_path / "records", "train")[2]).all()
    rows = read_sidecar(tmp_path / "records", "train")
    assert {(row["slide"], row["x"], row["y"]) for row in rows} == {
        ("", "", "")
    }


def test_duplicates_stay_and_are_told(official, tmp_path, caplog):
    run("hdf5", official, tmp_path / "records")
    text = caplog.text
    assert "the pixels of 9 validation patches are in train too" in text
    assert "the pixels of 7 test patches are in validation too" in text


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda f: f.joinpath(f"{PREFIX}valid_y.h5").unlink(), "not found"),
        (
            lambda f: f.joinpath(f"{PREFIX}train_x.h5").write_bytes(b"no"),
            "found no HDF5 file with a dataset 'x'",
        ),
        (
            lambda f: write_h5(f, "test_y", "y", np.full((7, 1, 1, 1), 3)),
            r"found labels \[3\]",
        ),
        (
            lambda f: write_h5(f, "test_x", "x", np.zeros((7, 96, 96, 1))),
            r"found x uint8\(7, 96, 96, 1\), expected uint8\(7, 96, 96, 3\)",
        ),
        (
            lambda f: write_h5(f, "test_x", "x", np.zeros((6, 96, 96, 3))),
            r"test_y.h5: found y uint8\(7, 1, 1, 1\), .* 6 patches in x",
        ),
        (
            lambda f: f.joinpath(f"{PREFIX}test_meta.csv").write_text(
                "wsi,coord_x,coord_y\na,1,1\n"
            ),
            "found 1 rows, expected 7",
        ),
        (lambda f: [p.unlink() for p in f.iterdir()], "found no"),
    ],
    ids=[
        "no labels", "no HDF5", "label 3", "grey", "short", "meta", "empty",
    ],
)  # fmt: skip
def test_bad_official_files_are_refused(official, tmp_path, spoil, found):
    spoil(official)
    with pytest.raises((ValueError, FileNotFoundError), match=found):
        run("hdf5", official, tmp_path / "records")
    assert not (tmp_path / "records").exists()
    assert not (tmp_path / "records.incomplete").exists()


def test_slides_of_another_source_are_refused(official, tmp_path):
    with pytest.raises(ValueError, match="--slide_csv: found it with"):
        run("hdf5", official, tmp_path / "records", slide_csv="slides.csv")


# Class folders.


def write_folders(root, patches, *parts) -> None:
    """Writes patches in turn to folders, as PNG."""
    for number, image in enumerate(patches.image):
        folder = root / parts[number % len(parts)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"p{number}.png")


def test_class_folders_are_dealt_into_folds(patches, tmp_path):
    write_folders(tmp_path / "tree", patches, "0", "1")
    made = run("folder", tmp_path / "tree", tmp_path / "records", num_folds=3)
    assert [split.name for split in made.splits] == ["fold0", "fold1", "fold2"]
    rows = [
        row
        for split in made.splits
        for row in read_sidecar(tmp_path / "records", split.name)
    ]
    expected = {
        f"{n % 2}/p{n}.png": (str(n % 2), schema.hash_pixels(image))
        for n, image in enumerate(patches.image)
    }
    found = {r["source_name"]: (r["label"], r["id"]) for r in rows}
    assert found == expected


def test_folders_of_splits_stay(patches, tmp_path):
    write_folders(
        tmp_path / "tree", patches, "train/no", "train/yes", "valid/no",
        "valid/yes", "test",
    )  # fmt: skip
    made = run(
        "folder", tmp_path / "tree", tmp_path / "records",
        class_folders=("no", "yes"),
    )  # fmt: skip
    assert {s.name: s.class_counts for s in made.splits} == {
        "test": {"-1": 4},
        "train": {"0": 5, "1": 5},
        "validation": {"0": 5, "1": 4},
    }
    labels = read_split(tmp_path / "records", "train")[1]
    assert 0 < np.count_nonzero(np.diff(labels)), "classes are mixed"
    assert verify.verify(str(tmp_path / "records"), num_workers=1) == []


def test_class_folders_of_other_names_are_not_guessed(patches, tmp_path):
    write_folders(tmp_path / "tree", patches, "train/no", "train/yes")
    with pytest.raises(ValueError, match="found no patch in class folders 0"):
        run("folder", tmp_path / "tree", tmp_path / "records")


def test_file_that_is_no_patch_is_named(patches, tmp_path):
    write_folders(tmp_path / "tree", patches, "0", "1")
    (tmp_path / "tree" / "1" / "notes.txt").write_text("hello")
    result = run_pcam(
        "convert_to_tfrecords", "--source=folder",
        f"--input_dir={tmp_path / 'tree'}", f"--output_dir={tmp_path / 'r'}",
    )  # fmt: skip
    assert result.returncode == 1
    assert "1/notes.txt: found 5 bytes" in result.stderr
    assert "Traceback" not in result.stderr


def test_real_jpegs_become_records(pcam_jpeg, tmp_path):
    tree = tmp_path / "tree"
    for split in ("train", "valid"):
        for label in "01":
            paths = sorted((pcam_jpeg / split / label).iterdir())[:20]
            (tree / split / label).mkdir(parents=True)
            for path in paths:
                shutil.copy(path, tree / split / label)
    run("folder", tree, tmp_path / "records")
    images = read_split(tmp_path / "records", "train")[0]
    rows = read_sidecar(tmp_path / "records", "train")
    assert len(rows) == 40
    for image, row in zip(images, rows, strict=True):
        path = tree / "train" / row["source_name"]
        with Image.open(tree / row["source_name"]) as expected:
            np.testing.assert_array_equal(image, np.asarray(expected), path)


# A TensorFlow dataset, made by its own builder.


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "num_workers", [1, pytest.param(2, marks=pytest.mark.long)]
)
def test_tensorflow_dataset_becomes_records(patches, tmp_path, num_workers):
    examples = [
        {"id": f"patch {row}", "image": image, "label": label}
        for row, (image, label) in enumerate(
            zip(patches.image, patches.label.tolist(), strict=True)
        )
    ]
    splits = {"train": examples[:15], "validation": examples[15:23]}
    folder = write_dataset(tmp_path, "patches", splits)
    made = run("tfds", folder, tmp_path / "records", num_workers=num_workers)
    sizes = {split.name: split.num_records for split in made.splits}
    assert sizes == {"train": 15, "validation": 8}
    assert verify.verify(str(tmp_path / "records"), num_workers=1) == []
    for split in sizes:
        images, labels, _ = read_split(tmp_path / "records", split)
        for image, label, row in zip(
            images, labels, read_sidecar(tmp_path / "records", split),
            strict=True,
        ):  # fmt: skip
            number = int(row["source_name"].removeprefix("patch "))
            np.testing.assert_array_equal(image, patches.image[number])
            assert label == patches.label[number]


@pytest.mark.tensorflow
def test_folder_without_a_tensorflow_dataset_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="found no prepared dataset"):
        run("tfds", tmp_path / "empty", tmp_path / "records")
