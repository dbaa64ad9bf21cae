"""Locks, in folders that come and go."""

import os
import re
import subprocess
import sys

import pytest

from pcam_tfdata.system import locks

OWN = re.compile(r"job\d")
# Each holds it, and removes it as a job does that is done.
COME_AND_GO = """
import os, sys
from pcam_tfdata.system import files, locks
folder = sys.argv[1]
path = os.path.join(folder, "lock")
for _ in range(500):
    files.refuse_others(folder, "lock".__eq__, "locks")
    with locks.hold(path, "is here", "Wait.", wait_seconds=500):
        os.remove(path)
"""


def test_jobs_that_end_leave_others_their_lock(tmp_path):
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", COME_AND_GO, str(tmp_path / "folder")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    told = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 3, told


def test_folder_that_is_none_is_an_error(tmp_path):
    os.mkfifo(tmp_path / "folder")
    with pytest.raises(FileExistsError):
        with locks.hold(str(tmp_path / "folder" / "lock"), "is", "Wait."):
            pass


def test_lock_that_cannot_be_made_is_an_error(tmp_path):
    path = tmp_path / "lock"
    path.symlink_to(tmp_path / "nowhere" / "lock")
    with pytest.raises(FileNotFoundError):
        with locks.hold(str(path), "is here", "Wait."):
            pass
    assert os.listdir(tmp_path) == ["lock"]


def test_folder_that_cannot_be_made_is_an_error(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("nowhere")
    with pytest.raises((FileExistsError, FileNotFoundError)):
        with locks.hold(str(link / "folder" / "lock"), "is here", "Wait."):
            pass
    assert os.listdir(tmp_path) == ["link"]


def test_folder_of_ones_own_goes_when_it_is_empty(tmp_path):
    folder = tmp_path / "jobs"
    for name in ("job1", None):
        with locks.own_folder(str(folder), OWN, "jobs", "is here"):
            with pytest.raises(RuntimeError, match="is here, expected nobody"):
                with locks.own_folder(str(folder), OWN, "jobs", "is here"):
                    pass
            if name:
                (folder / name).touch()
            else:
                (folder / "job1").unlink()
        assert folder.exists() == bool(name)


def test_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="something other than jobs"):
        with locks.own_folder(str(tmp_path), OWN, "jobs", "is here"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
