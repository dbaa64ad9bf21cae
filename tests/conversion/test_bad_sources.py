"""Sources that are not what they should be: each fault is told in one line."""

import csv
import pathlib

import h5py
import numpy as np
import pytest
import source_files
from conftest import convert_folder, make_clouds, write_patches
from PIL import Image

from pcam_tfdata.records import manifest
from pcam_tfdata.system import faults

PREFIX = f"{source_files.PREFIX}train_"
NUM_PATCHES = 20
META = "coord_x,coord_y,wsi\n"


def run(source, input_dir, **options) -> manifest.Manifest:
    output_dir = input_dir.parent / "records"
    return convert_folder(
            str(input_dir), str(output_dir), source=source, num_workers=1,
            **options,
)  # fmt: skip


def refused(source, input_dir, **options) -> str:
    """Returns the line that refuses a source."""
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        run(source, input_dir, **options)
    assert not (input_dir.parent / "records").exists()
    line = str(raised.value)
    assert line.isprintable(), "one line"
    return line


# Kaggle's folder.


@pytest.fixture
def kaggle(tmp_path) -> tuple[pathlib.Path, list[str]]:
    folder = tmp_path / "kaggle"
    return folder, write_patches(folder / "train", make_clouds(3))


def write_labels(folder, rows) -> None:
    lines = ["id,label", *rows, ""]
    (folder / "train_labels.csv").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("{}_,1", "found id {}_ without a file, expected {}_.tif"),
        ("{},-1", "line 2: found label '-1' for {}"),
        ("{},+1", "line 2: found label '+1' for {}"),
    ],
    ids=["other", "minus", "plus"],
)
def test_reason_is_told_where_every_row_is_bad(kaggle, row, found):
    folder, names = kaggle
    write_labels(folder, map(row.format, names))
    with pytest.raises(faults.BadInputError) as raised:
        run("kaggle", folder)
    reason = found.replace("{}", names[0])
    assert reason in raised.value.faults[0].reason
    line = refused("kaggle", folder, on_bad_patch="skip")
    assert line.startswith("Split train: found no patch that can be used")


def test_faults_are_counted_by_kind_and_say_what_skipping_leaves(
    tmp_path, caplog
):
    folder = tmp_path / "kaggle"
    names = write_patches(folder / "train", make_clouds(100))
    labels = [f"{name},{place % 2}" for place, name in enumerate(names)]
    missing = names[94:]
    for name in missing:
        (folder / "train" / f"{name}.tif").unlink()
    twice, other = labels[:5], [f"{name},x" for name in names[50:52]]
    labels[50:52] = other
    write_labels(folder, [*labels, *twice, f"{names[10]},1", f"{names[11]},0"])
    with pytest.raises(faults.BadInputError) as raised:
        run("kaggle", folder)
    *told, last = str(raised.value).splitlines()
    table = folder / "train_labels.csv"
    starts = [
        f"{table}: line 52: found label 'x' for {names[50]}",
        f"{table}: line 53: found label 'x' for {names[51]}",
        f"{table}: line 107: found conflicting labels for {names[10]}",
        f"{table}: line 108: found conflicting labels for {names[11]}",
        *(f"{table}: found id {name} without a file" for name in missing[:3]),
        "And 3 more rows without a file.",
    ]
    assert len(told) == len(starts)
    for line, start in zip(told, starts, strict=True):
        assert line.startswith(start)
    assert last == (
        "10 faults: 2 bad labels, 2 conflicts, 6 rows without a file."
        " --on_bad_patch=skip would leave 90 patches."
    )
    assert f"{table}: found 5 rows that repeat an id (line" in caplog.text
    made = run("kaggle", folder, on_bad_patch="skip")
    assert sum(split.num_records for split in made.splits) == 90


def test_fault_of_late_pixels_says_what_skipping_leaves(kaggle):
    folder, names = kaggle
    write_labels(folder, [f"{name},1" for name in names])
    path = folder / "train" / f"{names[1]}.tif"
    path.write_bytes(b"no image")
    line = refused("kaggle", folder, num_folds=2)
    assert line.startswith(f"{path}: found 8 bytes that do not decode")
    assert line.endswith(" --on_bad_patch=skip would leave 2 patches.")


def test_slides_that_contradict_each_other_are_told_together(kaggle):
    folder, names = kaggle
    write_labels(folder, [f"{name},1" for name in names])
    path = folder / "slides.csv"
    rows = [f"{name},{slide}" for slide in "ab" for name in names]
    path.write_text("\n".join(["id,wsi", *rows]))
    with pytest.raises(faults.BadInputError) as raised:
        run("kaggle", folder, slide_csv=str(path))
    *told, last = str(raised.value).splitlines()
    assert [f"line {line}: found conflicting slides" for line in (5, 6, 7)] == [
        line.removeprefix(f"{path}: ").split(" for ")[0] for line in told
    ]
    assert last == "3 faults: 3 conflicts."


def test_table_of_a_header_alone_is_refused(kaggle):
    folder, names = kaggle
    write_labels(folder, [])
    with pytest.raises(faults.BadInputError) as raised:
        run("kaggle", folder)
    assert "found a file without a row" in raised.value.faults[0].reason
    for name in names:
        (folder / "train" / f"{name}.tif").unlink()
    line = refused("kaggle", folder)
    assert line.startswith("Split train: found no patch that can be used")


# The official files.


@pytest.fixture
def official(tmp_path) -> pathlib.Path:
    folder = tmp_path / "pcam"
    folder.mkdir()
    write_h5(folder, "x", make_clouds(NUM_PATCHES))
    write_h5(folder, "y", np.arange(NUM_PATCHES).reshape(-1, 1, 1, 1) % 2)
    return folder


def write_h5(folder, name, values) -> None:
    source_files.write_h5(folder, f"train_{name}", name, values)


def write_meta(folder, *rows) -> None:
    """Writes rows, the last one again and again."""
    rows = [*rows, *rows[-1:] * (NUM_PATCHES - len(rows))]
    (folder / f"{PREFIX}meta.csv").write_text(META + "\n".join(rows))


@pytest.mark.parametrize(
    ("slide", "found"),
    [
        ('"a\nb"', r"'a\nb'"),
        ('"a\rb"', r"'a\nb'"),
        ("a\0b", r"'a\x00b'"),
        ("a/b", "'a/b'"),
    ],
    ids=["newline", "return", "NUL", "path"],
)
def test_slide_that_is_no_plain_name_is_refused(official, slide, found):
    write_meta(official, "1,2,", f"1,2,{slide}")
    line = refused("hdf5", official)
    assert f"meta.csv: row 1: found wsi {found}, expected a plain" in line


@pytest.mark.parametrize(
    "number", ["nan", "inf", "-inf", "1e30", "1.7", "", "one"]
)
@pytest.mark.parametrize("column", ["coord_x", "coord_y"])
def test_coordinate_that_is_no_whole_number_is_refused(
    official, number, column
):
    bad = f"{number},2,a" if column == "coord_x" else f"1,{number},a"
    write_meta(official, "1,2,a", "3,4,a", bad)
    line = refused("hdf5", official)
    expected = f"row 2: found {column} {number!r}, expected a whole number"
    assert f"meta.csv: {expected}" in line


def test_coordinates_may_be_written_as_floats(official):
    write_meta(official, "-1.0,2e3,a", "3,98304,")
    run("hdf5", official)
    with open(official.parent / "records" / "patches.csv", newline="") as file:
        rows = [(r["x"], r["y"], r["slide"]) for r in csv.DictReader(file)]
    assert rows[:2] == [("-1", "2000", "a"), ("3", "98304", "")]


def make_group(folder, name) -> None:
    with h5py.File(folder / f"{PREFIX}{name}.h5", "w") as file:
        file.create_group(name)


def make_dataset(folder, name, values) -> None:
    with h5py.File(folder / f"{PREFIX}{name}.h5", "w") as file:
        file.create_dataset(name, data=values)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda f: make_group(f, "x"), "x.h5: found no HDF5 file with"),
        (lambda f: make_group(f, "y"), "y.h5: found no HDF5 file with"),
        (
            lambda f: make_dataset(f, "y", np.zeros(NUM_PATCHES, [("a", "i4")])),
            "y.h5: found y [('a', '<i4')](20,), expected a number for each",
        ),
        (
            lambda f: make_dataset(f, "y", np.uint8(1)),
            "y.h5: found y uint8(), expected a number for each of the 20",
        ),
        (
            lambda f: make_dataset(f, "y", h5py.Empty("u1")),
            "y.h5: found y uint8None, expected a number for each",
        ),
        (
            lambda f: make_dataset(f, "x", h5py.Empty("u1")),
            "x.h5: found x uint8None, expected uint8(0, 96, 96, 3)",
        ),
        (
            lambda f: make_dataset(f, "y", np.zeros(19, np.uint8)),
            "y.h5: found y uint8(19,), expected a number for each of the 20",
        ),
        (
            lambda f: make_dataset(f, "y", np.zeros((20, 2), np.uint8)),
            "y.h5: found y uint8(20, 2), expected a number for each of the 20",
        ),
        (
            lambda f: make_dataset(f, "y", np.array([b"0"] * 20)),
            "y.h5: found y |S1(20,), expected a number for each of the 20",
        ),
    ],
    ids=[
        "x group", "y group", "compound", "scalar", "empty", "x empty", "short",
        "one-hot", "text",
    ],
)  # fmt: skip
def test_file_that_is_at_fault_is_named(official, spoil, found):
    spoil(official)
    assert PREFIX + found in refused("hdf5", official)


@pytest.mark.parametrize("name", ["x", "mask"])
def test_damaged_chunk_is_named_by_file_and_rows(official, name):
    path = official / f"{PREFIX}{name}.h5"
    values = np.ones((NUM_PATCHES, 96, 96, 3 if name == "x" else 1), np.uint8)
    with h5py.File(path, "w") as file:
        made = file.create_dataset(
            name, data=values, chunks=(1, *values.shape[1:]), compression="gzip"
        )
        chunk = made.id.get_chunk_info_by_coord((13, 0, 0, 0))
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    line = refused("hdf5", official)
    assert line.startswith(f"{path}: found rows among 0 to 19 that cannot be")


def test_packed_meta_is_read(official):
    write_meta(official, "1,2,a")
    source_files.pack(official / f"{PREFIX}meta.csv")
    run("hdf5", official)
    with open(official.parent / "records" / "patches.csv", newline="") as file:
        rows = [(r["x"], r["y"], r["slide"]) for r in csv.DictReader(file)]
    assert rows == [("1", "2", "a")] * NUM_PATCHES


# Class folders.


def write_images(folder, num_images=3) -> None:
    folder.mkdir(parents=True)
    seed = len(list(folder.parents[1].rglob("*")))  # None are alike.
    for number, image in enumerate(make_clouds(num_images, seed)):
        Image.fromarray(image).save(folder / f"p{number}.png")


@pytest.mark.parametrize("names", [("0", "0/"), ("0", "./0")])
def test_classes_that_are_one_folder_are_refused(tmp_path, names):
    tree = tmp_path / "tree"
    write_images(tree / "0")
    line = refused("folder", tree, class_folders=names)
    assert line.startswith(f"--class_folders: found '{','.join(names)}', exp")


@pytest.mark.parametrize("names", [["a"], ["0", "1", "2"]])
def test_class_folders_are_two(tmp_path, names):
    (tmp_path / "tree").mkdir()
    line = refused("folder", tmp_path / "tree", class_folders=names)
    assert line.startswith(f"--class_folders: found '{','.join(names)}', exp")


def test_split_of_which_nothing_is_left_is_refused(tmp_path):
    tree = tmp_path / "tree"
    for name in ("train/0", "train/1"):
        write_images(tree / name)
    (tree / "test").mkdir()
    (tree / "test" / "p.png").write_bytes(b"no image")
    line = refused("folder", tree, on_bad_patch="skip")
    assert line.startswith("Split test: found no patch that can be used")


@pytest.mark.parametrize(
    ("root", "aside", "folder", "shown"),
    [
        ("", "2/p.png", "/", "2"),
        ("train", "train/2/p.png", "/train/", "2"),
        ("train", "train/p.png", "/train/", "p.png"),
        ("", "test/p.png", "/", "test"),
        ("train", "p.png", "/", "p.png"),
    ],
    ids=["class", "class in split", "in split", "test", "beside splits"],
)
def test_what_is_left_aside_is_told(
    tmp_path, caplog, root, aside, folder, shown
):
    tree = tmp_path / "tree"
    for name in "01":
        write_images(tree / root / name)
    (tree / ".hidden").touch()
    run("folder", tree, num_folds=2)
    assert "left aside" not in caplog.text
    (tree / aside).parent.mkdir(exist_ok=True)
    (tree / aside).touch()
    run("folder", tree, num_folds=2, overwrite=True)
    assert caplog.text.count("left aside") == 1
    told = f"{tree}{folder}: left aside 1 files or folders ('{shown}'), since"
    assert told in caplog.text


def test_left_aside_names_are_few_and_in_one_line(tmp_path, caplog):
    tree = tmp_path / "tree"
    for name in "01":
        write_images(tree / name)
    for number in range(1_200):
        (tree / f"{number:04}\n.png").touch()
    run("folder", tree, num_folds=2)
    told = r"left aside 1,200 files or folders ('0000\n.png, 0001\n.png, "
    assert told in caplog.text


# TensorFlow datasets, made by their own builder.


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> pathlib.Path:
    """A folder of datasets, by their names."""
    folder = tmp_path_factory.mktemp("prepared")
    plain = [b"a", b"b", b"c"]
    for name, ids, labels in (
        ("newline", [b"a", b"b", b"c\nd"], [0, 1, 0]),
        ("nul", [b"a", b"a\0", b"a\0\0"], [0, 1, 0]),
        ("bytes", [b"\xff", b"b", b"c"], [0, 1, 0]),
        ("some_labels", plain, [0, 1, -1]),
        ("first_without", plain, [-1, 1, 0]),
        ("no_labels", plain, [-1, -1, -1]),
    ):
        examples = [
            {
                "id": own,
                "label": label,
                "image": np.full((96, 96, 3), n, np.uint8),
            }
            for n, (own, label) in enumerate(zip(ids, labels, strict=True))
        ]
        source_files.write_dataset(folder, name, {"train": examples})
    return folder


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("some_labels", "row 2: found label -1, expected 0 or 1, or -1 in"),
        ("first_without", "row 0: found label -1, expected 0 or 1, or -1 in"),
        ("no_labels", "found no labelled patch that can be used"),
    ],
)
def test_bad_tensorflow_dataset_is_named(prepared, tmp_path, name, found):
    folder = tmp_path / name
    folder.symlink_to(prepared / name / "1.2.3")
    line = refused("tfds", folder)
    assert line.startswith(f"{folder}: ") and found in line
    if name != "no_labels":
        assert f"{folder}: train, row" in line


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["newline", "nul", "bytes"])
def test_ids_that_are_no_plain_names_give_way_to_rows(prepared, tmp_path, name):
    folder = tmp_path / name
    folder.symlink_to(prepared / name / "1.2.3")
    run("tfds", folder)
    with open(tmp_path / "records" / "patches.csv", newline="") as file:
        names = [row["source_name"] for row in csv.DictReader(file)]
    assert names == ["train_0", "train_1", "train_2"]
