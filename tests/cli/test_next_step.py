"""The last line of a command names the next one, which works as it is printed."""

import os
import pathlib
import re
import shlex

import loaded
import numpy as np
import pytest
import source_files
from conftest import FOLDS, NUM_TEST, convert_folder, run_program

NEXT = re.compile(r"^Next: pcam (.*)\n", re.M)
SHORT = {"train": ("--model=small_cnn", "--epochs=1")}


def read_next(stderr: str) -> list[str]:
    """Returns the arguments of the one command that is named, last."""
    (line,) = NEXT.findall(stderr)
    assert stderr.endswith(f"Next: pcam {line}\n")
    return shlex.split(line)


def run(*arguments) -> str:
    """Runs a command that succeeds; returns its stderr."""
    result = run_program(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stderr


def test_what_is_printed_leads_from_patches_to_a_csv(tmp_path):
    home = tmp_path / "my patches"
    home.mkdir()
    stderr = run(
        "synthesize", f"--output_dir={home}/kaggle", "--num_train=60",
        f"--num_test={NUM_TEST}", "--num_workers=1",
    )  # fmt: skip
    passed = []
    while "Next: " in stderr:
        command, *arguments = read_next(stderr)
        passed.append(command)
        stderr = run(command, *arguments, *SHORT.get(command, ()))
    assert passed == ["convert_to_tfrecords", "train", "evaluate", "predict"]
    assert sorted(os.listdir(home)) == ["kaggle", "records", "runs"]
    assert sorted(os.listdir(home / "runs")) == ["run", "run_submission.csv"]
    lines = (home / "runs" / "run_submission.csv").read_text().splitlines()
    assert len(lines) == 1 + NUM_TEST


def call(command: str, records_dir, *arguments: object) -> str:
    result = loaded.run(command, f"--records_dir={records_dir}", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stderr


@pytest.mark.tensorflow
@pytest.mark.parametrize("command", ["audit", "inspect"])
def test_training_follows_a_look(records_dir, tmp_path, command):
    stderr = call(command, records_dir, f"--output_dir={tmp_path}/o")
    assert read_next(stderr) == [
        "train",
        f"--records_dir={records_dir}",
        f"--run_dir={pathlib.Path(records_dir).parent}/runs/run",
        f"--train_splits={','.join(FOLDS[1:])}",
        "--validation_splits=fold0",
        "--batch_size=6",
    ]


def write_official(folder: pathlib.Path, *splits: str) -> pathlib.Path:
    """Writes PCam's files of some splits, of noise."""
    folder.mkdir()
    for number, split in enumerate(splits):
        rng = np.random.default_rng(number)
        shape = (16, 96, 96, 3)
        pixels = rng.integers(0, 256, shape)
        source_files.write_h5(folder, f"{split}_x", "x", pixels)
        labels = np.arange(16).reshape(-1, 1, 1, 1) % 2
        source_files.write_h5(folder, f"{split}_y", "y", labels)
    return folder


def test_splits_of_the_source_are_named(tmp_path):
    source = write_official(tmp_path / "pcam", "train", "valid", "test")
    output_dir = tmp_path / "records"
    (tmp_path / "runs" / "run").mkdir(parents=True)
    stderr = run(
        "convert_to_tfrecords", "--source=hdf5", f"--input_dir={source}",
        f"--output_dir={output_dir}", "--num_workers=1",
    )  # fmt: skip
    assert read_next(stderr) == [
        "train",
        f"--records_dir={output_dir}",
        f"--run_dir={tmp_path}/runs/run_new",
        "--train_splits=train",
        "--validation_splits=validation",
        "--batch_size=2",
    ]


def test_nothing_follows_where_nothing_can_validate(kaggle_tree, tmp_path):
    records_dir = tmp_path / "records"
    convert_folder(kaggle_tree, records_dir, num_folds=1)
    stderr = call("audit", records_dir, "--num_workers=1")
    assert "Next" not in stderr


def test_nothing_follows_a_leak(kaggle_tree, tmp_path):
    for path in (kaggle_tree / "test").iterdir():
        path.unlink()
    twin = min((kaggle_tree / "train").iterdir())
    (kaggle_tree / "test" / twin.name).write_bytes(twin.read_bytes())
    (kaggle_tree / "sample_submission.csv").write_text(
        f"id,label\n{twin.stem},0\n"
    )
    convert_folder(kaggle_tree, tmp_path / "records")
    stderr = call("audit", tmp_path / "records", "--num_workers=1")
    assert "Next" not in stderr
