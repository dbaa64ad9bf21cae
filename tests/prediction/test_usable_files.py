"""Prediction from Kaggle's folder: files and ids are checked before it."""

import os
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tables
from conftest import NUM_TEST, convert_folder

from pcam_tfdata.images import tiff
from pcam_tfdata.models import inference
from pcam_tfdata.prediction import configuration, predict
from pcam_tfdata.system import faults


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> pathlib.Path:
    """A run with a network that tells patches apart by their colors."""
    image = keras.Input((96, 96, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    run_dir = tmp_path_factory.mktemp("run")
    model = keras.Model(image, keras.layers.Dense(1)(x))
    model.save(run_dir / "best.keras")
    return run_dir


@pytest.fixture
def run(run_dir, kaggle_tree, tmp_path, monkeypatch):
    """Predicts the folder; returns the rows and how often the network ran."""
    calls = []
    forward = inference.Predictor.stream

    def stream(*args, **options):
        calls.append(1)
        return forward(*args, **options)

    monkeypatch.setattr(inference.Predictor, "stream", stream)

    def run(**options):
        path = str(tmp_path / "s.csv")
        predict.predict(
            configuration.PredictOptions(
                str(run_dir), path, input_dir=str(kaggle_tree), **options
            )
        )
        return tables.read_csv(path, ("id", "label"))

    run.calls = calls
    return run


def list_tiffs(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.iterdir())


def exchange(tree: pathlib.Path) -> None:
    one, two = list_tiffs(tree / "test")[:2]
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)


def swap_colors(tree: pathlib.Path) -> None:
    for path in list_tiffs(tree / "test"):
        path.write_bytes(tiff.encode(tiff.read(str(path))[..., ::-1]))


@pytest.mark.parametrize("spoil", [exchange, swap_colors])
def test_ids_are_checked_as_in_a_conversion(run, kaggle_tree, tmp_path, spoil):
    spoil(kaggle_tree)
    with pytest.raises(faults.BadInputError, match="found pixels with SHA-1"):
        convert_folder(str(kaggle_tree), str(tmp_path / "records"))
    with pytest.raises(faults.BadInputError, match="found pixels with SHA-1"):
        run()
    assert not run.calls
    assert not (tmp_path / "s.csv").exists()
    assert len(run(check_ids="never")) == NUM_TEST


def test_without_other_patches_one_hash_asks_it_of_all(run, kaggle_tree):
    shutil.rmtree(kaggle_tree / "train")
    one, *_ = list_tiffs(kaggle_tree / "test")
    image = tiff.read(str(one))
    one.write_bytes(tiff.encode(255 - image))
    with pytest.raises(faults.BadInputError, match=f"{one}: found pixels"):
        run()


def test_ids_that_are_all_wrong_are_told(run, kaggle_tree, caplog):
    shutil.rmtree(kaggle_tree / "train")
    swap_colors(kaggle_tree)
    assert len(run()) == NUM_TEST
    assert f"{NUM_TEST} ids are written as a SHA-1 and none is" in caplog.text


def test_names_that_are_no_hashes_need_no_check(run, kaggle_tree, caplog):
    caplog.set_level("INFO", "pcam_tfdata")
    shutil.rmtree(kaggle_tree / "train")
    (kaggle_tree / "sample_submission.csv").unlink()
    for number, path in enumerate(list_tiffs(kaggle_tree / "test")):
        path.rename(path.with_name(f"patch{number}.tif"))
    assert [name for name, _ in run()] == [
        f"patch{number}" for number in range(NUM_TEST)
    ]
    assert "records" not in caplog.text.lower()  # None are made.


def test_bad_files_are_told_before_the_network_runs(run, kaggle_tree, tmp_path):
    paths = list_tiffs(kaggle_tree / "test")
    for path in paths[1:3]:
        path.write_bytes(b"no image")
    with pytest.raises(faults.BadInputError) as told:
        run()
    for path in paths[1:3]:
        assert f"{path}: found 8 bytes that do not decode" in str(told.value)
    assert not run.calls
    assert not (tmp_path / "s.csv").exists()


def test_bad_patches_can_be_left_out(run, kaggle_tree, caplog):
    whole = dict(run())
    one, two, three, *_ = list_tiffs(kaggle_tree / "test")
    one.write_bytes(b"no image")
    two.write_bytes(three.read_bytes())
    left = dict(run(on_bad_patch="skip"))
    assert left == {
        name: value
        for name, value in whole.items()
        if name not in (one.stem, two.stem)
    }
    assert f"{one}: found 8 bytes" in caplog.text
    assert f"{two}: found pixels with SHA-1 {three.stem}" in caplog.text
    assert "Warning: patches with these faults are left out of" in caplog.text


def test_sample_with_patches_that_are_left_out_is_refused(run, kaggle_tree):
    one, *_ = list_tiffs(kaggle_tree / "test")
    one.write_bytes(b"no image")
    sample = kaggle_tree / "sample_submission.csv"
    with pytest.raises(ValueError, match="not among the patches") as told:
        run(on_bad_patch="skip", sample_submission=str(sample))
    assert str(told.value).startswith(
        f"{sample}: found ids 1 not among the patches (as {one.stem}),"
        f" expected each of the {NUM_TEST - 1} patches once."
    )
    assert not run.calls


def test_nothing_is_left_of_a_folder_of_bad_patches(run, kaggle_tree):
    for path in list_tiffs(kaggle_tree / "test"):
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="found no test patch that can be"):
        run(on_bad_patch="skip")
    assert not run.calls


def test_links_are_followed_where_asked(run, kaggle_tree):
    whole = run()
    (kaggle_tree / "test").rename(kaggle_tree / "elsewhere")
    (kaggle_tree / "test").mkdir()
    for path in list_tiffs(kaggle_tree / "elsewhere"):
        os.symlink(path, kaggle_tree / "test" / path.name)
    with pytest.raises(faults.BadInputError, match="--follow_symlinks"):
        run()
    assert run(follow_symlinks=True) == whole


def test_file_that_changes_meanwhile_ends_the_job(
    run, kaggle_tree, monkeypatch, tmp_path
):
    path = list_tiffs(kaggle_tree / "test")[0]
    stream_patches = inference.Predictor.stream_patches

    def spoil(*args, **options):
        path.write_bytes(b"no image")
        return stream_patches(*args, **options)

    monkeypatch.setattr(inference.Predictor, "stream_patches", spoil)
    with pytest.raises(faults.BadInputError, match=f"{path}: found 8 bytes"):
        run()
    assert not (tmp_path / "s.csv").exists()


def test_labels_of_the_train_folder_are_predicted_too(run, kaggle_tree):
    wanted = tables.read_csv(str(kaggle_tree / "train_labels.csv"), ("id",))
    found = run(split="train", threshold=0.0)
    assert [name for name, _ in found] == [name for (name,) in wanted]
    assert {label for _, label in found} == {"1"}
    assert np.isfinite([float(label) for _, label in run()]).all()
