"""The starts of a run, in its `environment.json`: where and how it was computed."""

import datetime
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import pcam_tfdata
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import files, versions

_PACKAGES = ("keras", "numpy", "scikit-learn", "tensorflow")


def add_start(run_dir: str, facts: Mapping[str, object]) -> None:
    """Adds a start of the run: versions, machine, git commit and `facts`."""
    now = datetime.datetime.now(datetime.UTC)
    start = {
        "started_at": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions.find(_PACKAGES),
        "git_commit": _find_commit(),
        **facts,
    }
    content = {"starts": [*read_starts(run_dir), start]}
    files.write_json(os.path.join(run_dir, run_folder.ENVIRONMENT), content)


def read_starts(run_dir: str) -> list[dict[str, Any]]:
    """Returns the starts of a run; none where no file tells them.

    Raises:
        ValueError: the file is damaged, or does not name the run's records.
    """
    path = os.path.join(run_dir, run_folder.ENVIRONMENT)
    try:
        with open(path, encoding="utf-8") as file:
            starts = json.load(file)["starts"]
        for start in (starts[0], starts[-1]):
            start["manifest_sha256"]
        return starts
    except FileNotFoundError:
        return []
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: found no starts of a run ({type(error).__name__}:"
            f" {error}), expected the JSON that `pcam train` writes. Put it"
            " back from a copy, or run pcam train anew with --restart."
        ) from error


def find_records(run_dir: str) -> str | None:
    """Returns the hash of the manifest that a run was trained on, if known.

    Raises:
        ValueError: see `read_starts`.
    """
    starts = read_starts(run_dir)
    return starts[0]["manifest_sha256"] if starts else None


def _find_commit() -> str | None:
    """Returns the commit of the code where it runs from a checkout."""
    folder = pathlib.Path(pcam_tfdata.__file__).parent
    if not (folder.parent / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
