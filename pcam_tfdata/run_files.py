"""The files of a run folder: what was run, where, and what came of it."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence

import pcam_tfdata
from pcam_tfdata import tables

BEST_MODEL = "best.keras"
# Keras wants the ending, so it is the beginning that differs.
INCOMPLETE_MODEL = "incomplete.keras"
INPUT_CACHE = "input_cache"
CHECKPOINTS = "checkpoints"
ENVIRONMENT = "environment.json"
FLAGS = "flags.txt"
HISTORY = "history.csv"
HISTORY_PLOT = "history.png"
TIMING = "timing.csv"
TENSORBOARD = "tensorboard"
METRICS_JSON = "metrics.json"
METRICS_TEXT = "metrics.txt"
PREDICTIONS = "predictions.csv"
ROC_PLOT = "roc.png"
CONFUSION_PLOT = "confusion.png"
_OWNED = (
    BEST_MODEL, CHECKPOINTS, ENVIRONMENT, FLAGS, HISTORY, HISTORY_PLOT, TIMING,
    METRICS_JSON, METRICS_TEXT, PREDICTIONS, ROC_PLOT, CONFUSION_PLOT,
    INCOMPLETE_MODEL, INPUT_CACHE, TENSORBOARD, f"{FLAGS}.incomplete", f"{ENVIRONMENT}.incomplete",
)  # fmt: skip
# What may change between a run and its resumption: where things are, and how
# they get to the network if in the same order, which is looked at by itself.
_FREE = ("records_dir", "run_dir", "input", "input_threads", "check_crc")
_PACKAGES = ("keras", "numpy", "scikit-learn", "tensorflow")


def open_run(
    run_dir: str, flags: Mapping[str, object], *, restart: bool
) -> None:
    """Makes the folder of a run, or checks that it is that of the same run.

    Args:
        run_dir: The folder.
        flags: Name and value of every flag that makes the run what it is.
        restart: Removes what an earlier run left there.

    Raises:
        ValueError: the folder is that of a run with other flags.
        FileExistsError: it holds other things than a run.
    """
    path = os.path.join(run_dir, FLAGS)
    if os.path.isfile(path):
        if restart or not _has_begun(run_dir):
            _remove_run(run_dir)
        else:
            _refuse_other_run(path, flags)
            return
    elif os.path.lexists(run_dir) and (
        not os.path.isdir(run_dir) or set(os.listdir(run_dir)) - set(_OWNED)
    ):
        raise FileExistsError(
            f"{run_dir}: found something that is no run, expected a folder to"
            " make, or that of a run to resume. Choose another --run_dir."
        )
    os.makedirs(run_dir, exist_ok=True)
    _write_text(path, "".join(f"{line}\n" for line in _flag_lines(flags)))


def find_model(run_dir: str) -> str:
    """Returns the path of a run's best model.

    Raises:
        FileNotFoundError: the run has none.
    """
    path = os.path.join(run_dir, BEST_MODEL)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: not found, expected the folder of a run that `pcam train`"
            " has brought through an epoch. Check --run_dir."
        )
    return path


def read_flags(run_dir: str) -> dict[str, str]:
    """Returns the flags of a run, as text."""
    with open(os.path.join(run_dir, FLAGS), encoding="utf-8") as file:
        pairs = [line.strip().removeprefix("--").split("=", 1) for line in file]
    found = {pair[0]: pair[-1] for pair in pairs if pair[0]}
    missing = {"model", "train_splits", "validation_splits"} - found.keys()
    if missing:
        raise ValueError(
            f"{run_dir}: found no --{min(missing)} in {FLAGS}, expected the"
            " flags of a run. Train again."
        )
    return found


def read_manifest_sha256(run_dir: str) -> str:
    """Returns the hash of the records that a run was trained on."""
    with open(os.path.join(run_dir, ENVIRONMENT), encoding="utf-8") as file:
        return json.load(file)["starts"][0]["manifest_sha256"]


def write_environment(run_dir: str, facts: Mapping[str, object]) -> None:
    """Adds a start of the run: versions, machine, git commit and `facts`.

    Raises:
        ValueError: the run began on other data, or in another order.
    """
    path = os.path.join(run_dir, ENVIRONMENT)
    starts = []
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            starts = json.load(file)["starts"]
    if starts and starts[0]["manifest_sha256"] != facts["manifest_sha256"]:
        raise ValueError(
            f"{path}: found that the run began on other records, with manifest"
            f" SHA-256 {starts[0]['manifest_sha256']}, expected"
            f" {facts['manifest_sha256']}. Check --records_dir, or pass"
            " --restart to begin anew."
        )
    if starts and starts[0]["order"] != facts["order"]:
        raise ValueError(
            f"{path}: found that the run began with patches in the order of"
            f" {starts[0]['order']}, expected {facts['order']}. Choose --input"
            " as it was, or pass --restart to begin anew."
        )
    now = datetime.datetime.now(datetime.UTC)
    starts.append(
        {
            "started_at": now.isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": {"pcam_tfdata": pcam_tfdata.__version__}
            | {name: importlib.metadata.version(name) for name in _PACKAGES},
            "git_commit": _git_commit(),
            **facts,
        }
    )
    _write_text(path, json.dumps({"starts": starts}, indent=1) + "\n")


def make_input_cache(run_dir: str) -> None:
    """Makes an empty folder for cached records: old ones may be half written."""
    remove_input_cache(run_dir)
    os.mkdir(os.path.join(run_dir, INPUT_CACHE))


def remove_input_cache(run_dir: str) -> None:
    """Removes cached records, which are of no use to another process."""
    shutil.rmtree(os.path.join(run_dir, INPUT_CACHE), ignore_errors=True)


def write_history(run_dir: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes the scores of every epoch; no wall-clock value is among them."""
    if rows:
        tables.write_csv(
            os.path.join(run_dir, HISTORY),
            list(rows[0]),
            [list(row.values()) for row in rows],
        )


def append_timing(run_dir: str, row: Mapping[str, object]) -> None:
    """Appends a row to the seconds of every epoch that was computed."""
    path = os.path.join(run_dir, TIMING)
    is_new = not os.path.exists(path)
    with open(path, "a", encoding="utf-8") as file:
        if is_new:
            file.write(",".join(row) + "\n")
        file.write(",".join(str(value) for value in row.values()) + "\n")


def _flag_lines(flags: Mapping[str, object]) -> list[str]:
    def as_text(value: object) -> str:
        if isinstance(value, (list, tuple)):
            return ",".join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else str(value)

    return [
        f"--{name}={as_text(value)}"
        for name, value in flags.items()
        if value is not None
    ]


def _has_begun(run_dir: str) -> bool:
    """Returns whether there is anything of a run that could be lost."""
    folder = os.path.join(run_dir, CHECKPOINTS)
    has_checkpoint = os.path.isdir(folder) and bool(os.listdir(folder))
    return has_checkpoint or os.path.exists(os.path.join(run_dir, BEST_MODEL))


def _refuse_other_run(path: str, flags: Mapping[str, object]) -> None:
    with open(path, encoding="utf-8") as file:
        found = {line.strip() for line in file}
    differing = sorted(
        line
        for line in found ^ set(_flag_lines(flags))
        if line[2:].split("=", 1)[0] not in _FREE
    )
    if differing:
        names = sorted({line.split("=", 1)[0] for line in differing})
        before = [line for line in differing if line in found]
        raise ValueError(
            f"{path}: found a run that differs in {', '.join(names)} (it had"
            f" {' '.join(before) or 'the default'}). Give the same flags to"
            " resume it, another --run_dir, or --restart to begin anew."
        )


def _remove_run(run_dir: str) -> None:
    for name in _OWNED:
        path = os.path.join(run_dir, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)


def _write_text(path: str, text: str) -> None:
    with open(f"{path}.incomplete", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.incomplete", path)


def _git_commit() -> str | None:
    """Returns the commit of the code where it runs from a checkout."""
    folder = pathlib.Path(__file__).parent
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
