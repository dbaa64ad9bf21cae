"""Outputs take nothing else's place, and are refused before the work."""

import os
import pathlib
import shutil
import stat

import loaded
import pytest
from conftest import make_device

from pcam_tfdata.runs import outputs


@pytest.fixture
def home(kaggle_tree, records_dir, tmp_path) -> pathlib.Path:
    """A folder with a source, records, and runs."""
    shutil.copytree(records_dir, tmp_path / "records")
    for run_dir in (tmp_path / "run", tmp_path / "cv" / "fold0"):
        (run_dir / "checkpoints").mkdir(parents=True)
        (run_dir / "flags.txt").touch()
        (run_dir / "best.keras").touch()
    for path in (
        tmp_path / "kaggle" / "truth.csv",
        tmp_path / "cv" / "out_of_fold.csv",
        tmp_path / "camelyonpatch_level_2_split_test_meta.csv",
    ):
        path.touch()
    (tmp_path / "to_records").symlink_to("records")
    (tmp_path / "to_table.csv").symlink_to("kaggle/train_labels.csv")
    return tmp_path


def list_all(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("records/s.csv", "a records folder"),
        ("to_records/s.csv", "a records folder"),
        ("records/patches.csv", "a records folder"),
        ("kaggle/train_labels.csv", "a table of another kind"),
        ("to_table.csv", "a table of another kind"),
        ("kaggle/sample_submission.csv", "a table of another kind"),
        ("kaggle/truth.csv", "a table of another kind"),
        ("camelyonpatch_level_2_split_test_meta.csv", "a table of another"),
        ("cv/out_of_fold.csv", "a table of another kind"),
        ("kaggle/test/s.csv", "a folder of patches"),
        ("kaggle/train/s.csv", "a folder of patches"),
        ("cv/fold0/history.csv", "what belongs to a run"),
        ("run/flags.txt", "what belongs to a run"),
        ("run/checkpoints/s.csv", "what belongs to a run"),
        ("read.csv", "what this command reads"),
        ("none/s.csv", "no folder"),
        ("kaggle", "a folder or a disk, expected a file"),
        ("s.csv.gz", "a name that ends in .gz, expected .csv or .txt"),
        ("s.parquet", "a name that ends in .parquet"),
    ],
)
def test_file_is_not_written_over_other_things(home, name, found):
    (home / "read.csv").touch()
    path = str(home / name)
    with pytest.raises((OSError, ValueError)) as told:
        outputs.check_file(
            path,
            "--output_csv",
            suffixes=outputs.CSV,
            inputs=[str(home / "read.csv")],
        )
    assert str(told.value).startswith(f"--output_csv={path}: found {found}")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "name",
    [
        "s.csv", "S.CSV", "s", "s_0.95", "s.", "run/s.csv", "kaggle/s.csv",
        "cv/s.txt",
    ],
)  # fmt: skip
def test_file_may_be_new_or_replaced(home, name):
    for _ in range(2):
        outputs.check_file(
            str(home / name), "--output_csv", suffixes=outputs.CSV
        )
        (home / name).touch()


def test_pipes_and_character_devices_may_be_written_to_disks_not(tmp_path):
    os.mkfifo(tmp_path / "pipe.any")
    outputs.check_file(str(tmp_path / "pipe.any"), "--o", suffixes=outputs.CSV)
    null = make_device(tmp_path / "null", stat.S_IFCHR, 1, 3)
    outputs.check_file(str(null), "--o", suffixes=outputs.CSV)
    disk = make_device(tmp_path / "disk", stat.S_IFBLK, 7, 199)
    with pytest.raises(
        FileExistsError, match="a folder or a disk, expected a file"
    ):
        outputs.check_file(str(disk), "--o", suffixes=outputs.CSV)


@pytest.mark.parametrize(
    "arguments",
    [
        "convert_to_tfrecords --input_dir={home}/kaggle"
        " --output_dir={home}/records/more",
        "convert_to_tfrecords --input_dir={home}/kaggle"
        " --output_dir={home}/kaggle/train/records",
        "synthesize --num_train=3 --num_test=0 --output_dir={home}/records/k",
        "audit --records_dir={home}/other --output_dir={home}/kaggle",
        "runs --runs_dir={home} --output_csv={home}/cv/fold0/history.csv",
    ],
    ids=lambda text: text.split()[0],
)
def test_no_command_writes_into_what_has_another_meaning(home, arguments):
    writes_nothing(home, arguments)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "arguments",
    [
        "train --records_dir={home}/records --run_dir={home}/records/run",
        "cross_validate --records_dir={home}/records --run_dir={home}/records",
        "data_service --role=dispatcher --work_dir={home}/records/state",
        "inspect --records_dir={home}/other --output_dir={home}/records",
        "benchmark --what=input --records_dir={home}/records"
        " --json_output={home}/records/b.json",
    ],
    ids=lambda text: text.split()[0],
)
def test_no_command_of_networks_writes_into_it_either(home, arguments):
    writes_nothing(home, arguments)


def writes_nothing(home, arguments):
    shutil.copytree(home / "records", home / "other")
    before = list_all(home)
    result = loaded.run(*arguments.format(home=home).split())
    assert result.returncode in (1, 2), result.stderr
    (told,) = result.stderr.splitlines()
    assert told.count(": found ") == 1
    assert "Choose another --" in told
    assert list_all(home) == before
