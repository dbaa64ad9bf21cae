"""`--quiet` leaves warnings, errors and the result."""

import os
import pty
import subprocess
import sys
import termios

import loaded
import pytest
from conftest import run_program

RECORDS, RUN = "--records_dir=records", "--run_dir=run"
TRAINING = (RECORDS, RUN, "--model=small_cnn", "--batch_size=16", "--epochs=1")
# Each finds what the ones before have left.
COMMANDS = {
    "synthesize": ("--output_dir=made", "--num_train=20", "--num_test=2"),
    "convert_to_tfrecords": (
        "--input_dir=kaggle", "--output_dir=records",
        "--slide_csv=kaggle/slides.csv",
    ),
    "verify": (RECORDS,),
    "audit": (RECORDS,),
    "inspect": (RECORDS, "--output_dir=overview"),
    "train": TRAINING,
    "evaluate": (RECORDS, RUN, "--stress=jpeg"),
    "predict": (RECORDS, RUN, "--output_csv=s.csv"),
    "runs": ("--runs_dir=.",),
}  # fmt: skip


@pytest.mark.parametrize(
    "run",
    [loaded.run, pytest.param(run_program, marks=pytest.mark.long)],
    ids=["forked", "imports and all"],
)
def test_nothing_but_the_result_is_said(
    kaggle_tree, tmp_path, monkeypatch, run
):
    monkeypatch.chdir(tmp_path)
    for command, arguments in COMMANDS.items():
        result = run(command, *arguments, "--quiet")
        assert (result.returncode, result.stderr) == (0, ""), command
        assert result.stdout
    # The CSV is the result where it goes to stdout.
    arguments = (RECORDS, RUN, "--output_csv=/dev/stdout", "--quiet")
    result = run("predict", *arguments)
    csv = (tmp_path / "s.csv").read_text()
    assert (result.stdout, result.stderr) == (csv, "")
    # The flag is no part of a run, which goes on without it.
    assert "quiet" not in (tmp_path / "run" / "flags.txt").read_text()
    again = run("train", *TRAINING)
    assert "finished before, nothing to do" in again.stderr


@pytest.mark.long
def test_no_fold_of_a_cross_validation_says_more(records_dir, tmp_path):
    _, *arguments = TRAINING
    result = run_program(
        "cross_validate", f"--records_dir={records_dir}", "--quiet", *arguments,
        "--folds=fold0,fold1,fold2", cwd=tmp_path,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert "AUC of all out-of-fold patches" in result.stdout


def test_warnings_and_errors_stay(kaggle_tree, tmp_path):
    command = (
        "convert_to_tfrecords", f"--input_dir={kaggle_tree}", "--quiet",
        f"--output_dir={tmp_path / 'records'}", "--num_workers=1",
    )  # fmt: skip
    result = run_program(*command)
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("Warning: slides are unknown (no --slide_csv)")
    result = run_program(*command)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "found finished records. Pass --overwrite" in line


def show_on_a_terminal(*arguments: str) -> str:
    """Returns what a command that succeeds writes to a terminal as stderr."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen(
        [sys.executable, "-m", "pcam_tfdata", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # So it ends on Linux.
            pass
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def test_no_bar_is_drawn(records_dir):
    command = ("verify", f"--records_dir={records_dir}", "--num_workers=1")
    assert "verify: " in show_on_a_terminal(*command)
    assert show_on_a_terminal(*command, "--quiet") == ""


@pytest.mark.parametrize("command", ["verify", "cross_validate"])
def test_help_of_every_command_has_it(command):
    result = run_program(command, "--help")
    assert "  --[no]quiet: Show no progress" in result.stdout
