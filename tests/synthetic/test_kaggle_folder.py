"""Synthetic patches: honest labels, the same bytes every time."""

import csv
import hashlib
import pathlib

import numpy as np
import pytest
from conftest import run_pcam
from PIL import Image
from sklearn import linear_model, metrics, pipeline, preprocessing

from pcam_tfdata import schema
from pcam_tfdata.images import tiff
from pcam_tfdata.synthetic import kaggle_folder

_NUM_TRAIN, _NUM_TEST = 48, 12


def _write(path: pathlib.Path, **options) -> pathlib.Path:
    counts = {"num_train": _NUM_TRAIN, "num_test": _NUM_TEST, "num_workers": 1}
    kaggle_folder.write_kaggle_tree(str(path), **(counts | options))
    return path


def _read_rows(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _digest(tree: pathlib.Path) -> dict[str, str]:
    """Returns the hash of each file by its path within the tree."""
    return {
        str(path.relative_to(tree)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in tree.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> pathlib.Path:
    return _write(tmp_path_factory.mktemp("synthetic") / "tree")


@pytest.fixture(scope="module")
def patches() -> kaggle_folder.Patches:
    return kaggle_folder.make_patches(1024)


def test_id_is_the_hash_of_the_pixels(tree):
    paths = sorted(tree.glob("*/*.tif"))
    assert len(paths) == _NUM_TRAIN + _NUM_TEST
    for path in paths:
        assert schema.hash_pixels(tiff.read(str(path))) == path.stem


@pytest.mark.parametrize("num_workers", [1, 2])
def test_tree_depends_on_the_seed_alone(tree, tmp_path, num_workers):
    again = _write(tmp_path / "again", num_workers=num_workers)
    assert _digest(again) == _digest(tree)


def test_another_seed_gives_other_patches(tree, tmp_path):
    other = _write(tmp_path / "other", seed=1)
    names = {path.name for path in tree.glob("*/*.tif")}
    assert not names & {path.name for path in other.glob("*/*.tif")}


def test_tables_list_every_patch_in_order_of_id(tree):
    labels = _read_rows(tree / "train_labels.csv")
    submission = _read_rows(tree / "sample_submission.csv")
    truth = _read_rows(tree / "truth.csv")
    for split, rows in (("train", labels), ("test", submission)):
        ids = sorted(path.stem for path in (tree / split).iterdir())
        assert [row["id"] for row in rows] == ids
        assert [row["id"] for row in truth if row["split"] == split] == ids
    assert list(labels[0]) == list(submission[0]) == ["id", "label"]
    assert list(truth[0]) == ["split", "id", "label", "tumor_fraction", "slide"]
    assert {row["label"] for row in submission} == {"0"}
    assert [row["label"] for row in labels] == [
        row["label"] for row in truth if row["split"] == "train"
    ]


def test_label_means_tumor_in_the_centre(tree):
    truth = _read_rows(tree / "truth.csv")
    for row in truth:
        assert int(row["label"]) == (float(row["tumor_fraction"]) > 0)
    assert {row["label"] for row in truth if row["split"] == "train"} == {
        "0",
        "1",
    }


def test_train_and_test_share_no_slide(tree):
    truth = _read_rows(tree / "truth.csv")
    train = {row["slide"] for row in truth if row["split"] == "train"}
    test = {row["slide"] for row in truth if row["split"] == "test"}
    assert len(train) == 8
    assert test
    assert not train & test


def test_tree_holds_the_patches_made_in_memory(tree):
    patches = kaggle_folder.make_patches(_NUM_TRAIN)
    ids = [schema.hash_pixels(image) for image in patches.image]
    assert sorted(ids) == sorted(p.stem for p in (tree / "train").iterdir())
    truth = {row["id"]: row for row in _read_rows(tree / "truth.csv")}
    told = [np.float32(truth[name]["tumor_fraction"]) for name in ids]
    np.testing.assert_array_equal(told, patches.tumor_fraction)
    assert [truth[name]["slide"] for name in ids] == patches.slide


def test_masks_tell_the_tumor_of_every_patch(tree, tmp_path):
    masked = _write(tmp_path / "masked", has_masks=True)
    patches = kaggle_folder.make_patches(_NUM_TRAIN)
    for image, tumor in zip(patches.image, patches.tumor, strict=True):
        path = masked / "masks" / f"{schema.hash_pixels(image)}.png"
        with Image.open(path) as mask:
            np.testing.assert_array_equal(mask, np.where(tumor, 255, 0))
    digests = _digest(masked)
    assert len(digests) - len(_digest(tree)) == _NUM_TRAIN + _NUM_TEST
    assert _digest(tree).items() <= digests.items()


def test_every_slide_holds_both_classes(patches):
    for slide in set(patches.slide):
        labels = patches.label[np.array(patches.slide) == slide]
        assert set(labels) == {schema.NEGATIVE, schema.POSITIVE}
    assert 0.35 < patches.label.mean() < 0.45


def test_many_negatives_hold_tumor_beside_the_centre(patches):
    negatives = patches.tumor[patches.label == schema.NEGATIVE]
    assert not negatives[:, schema.CENTER, schema.CENTER].any()
    assert negatives.any(axis=(1, 2)).mean() > 0.5


def test_colours_alone_do_not_give_the_label_away(patches):
    levels = patches.image // 8 + 32 * np.arange(3, dtype=np.uint8)
    histograms = np.stack(
        [np.bincount(image.ravel(), minlength=96) for image in levels]
    )
    is_train = np.arange(len(levels)) < 768  # Whole slides of 64 patches.
    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        linear_model.LogisticRegression(C=0.01, max_iter=500),
    ).fit(histograms[is_train], patches.label[is_train])
    scores = model.decision_function(histograms[~is_train])
    assert metrics.roc_auc_score(patches.label[~is_train], scores) < 0.85


def test_no_test_patches_leave_an_empty_folder_and_a_header(tmp_path):
    tree = _write(tmp_path / "tree", num_test=0)
    assert not list((tree / "test").iterdir())
    assert (tree / "sample_submission.csv").read_text() == "id,label\n"


@pytest.mark.parametrize(
    "flag", ["num_train=0", "num_test=-1", "seed=-1", "num_workers=-1"]
)
def test_bad_number_is_refused_before_writing(tmp_path, flag):
    result = run_pcam(
        "synthesize", f"--output_dir={tmp_path / 'tree'}", f"--{flag}"
    )
    assert result.returncode == 2
    assert flag.partition("=")[0] in result.stderr
    assert not list(tmp_path.iterdir())


def test_full_output_is_refused_and_left_alone(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "mine.txt").write_text("keep")
    with pytest.raises(
        FileExistsError, match=r"other than an empty folder.*--output_dir"
    ):
        _write(tmp_path / "tree")
    names = sorted(path.name for path in tmp_path.rglob("*"))
    assert names == ["mine.txt", "tree"]


def test_leftovers_of_a_killed_run_are_replaced(tree, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree.incomplete" / "train").mkdir(parents=True)
    (tmp_path / "tree.incomplete" / "train" / "old.tif").write_bytes(b"old")
    assert _digest(_write(tmp_path / "tree")) == _digest(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
