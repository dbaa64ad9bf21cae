"""The files of a run folder: what was run, where, and what came of it."""

import contextlib
import datetime
import json
import logging
import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence

import pcam_tfdata
from pcam_tfdata.runs import checkpoint_files
from pcam_tfdata.system import csv_files, files, locks, versions

BEST_MODEL = "best.keras"
# Keras wants the ending, so it is the beginning that differs.
INCOMPLETE_MODEL = "incomplete.keras"
INPUT_CACHE = "input_cache"
LOCK = "lock"
BAD_BATCH = "bad_batch.npz"
CHECKPOINTS = "checkpoints"
ENVIRONMENT = "environment.json"
EVALUATIONS = "evaluations"
FLAGS = "flags.txt"
HISTORY = "history.csv"
IS_DEAD = "is_dead"  # In the history: 1 for an epoch that a dead network ends.
HISTORY_PLOT = "history.png"
TIMING = "timing.csv"
TENSORBOARD = "tensorboard"
METRICS_JSON = "metrics.json"
METRICS_TEXT = "metrics.txt"
PREDICTIONS = "predictions.csv"
SLIDES = "slides.csv"
ROC_PLOT = "roc.png"
CONFUSION_PLOT = "confusion.png"
_MADE = (
    BAD_BATCH, BEST_MODEL, CHECKPOINTS, CONFUSION_PLOT, ENVIRONMENT,
    EVALUATIONS, HISTORY, HISTORY_PLOT, INCOMPLETE_MODEL, INPUT_CACHE, METRICS_JSON,
    METRICS_TEXT, PREDICTIONS, ROC_PLOT, SLIDES, TENSORBOARD, TIMING,
)  # fmt: skip
# A process that was killed leaves what it was writing.
_OWNED = (*_MADE, *(f"{name}{files.INCOMPLETE}" for name in (*_MADE, FLAGS)))
# What may change between a run and its resumption: where things are, and how
# they get to the network if in the same order, which is looked at by itself.
_FREE = (
    "records_dir", "run_dir", "input", "input_threads", "check_crc",
    "steps_per_loop", "on_nan", "checkpoint_every_seconds", "keep_checkpoints",
    "tensorboard", "data_service", "data_service_timeout_seconds",
    "worker_wait_seconds",
)  # fmt: skip
# What `open_run` is told of a run, and a start of it tells.
_FACTS = ("manifest_sha256", "order", "input", "precision")
_logger = logging.getLogger(__name__)
_PACKAGES = ("keras", "numpy", "scikit-learn", "tensorflow")


@contextlib.contextmanager
def lock_run(run_dir: str) -> Iterator[None]:
    """Holds the folder of a run, and makes it if it is not there.

    The system lets go of the lock when its holder ends, however it ends.

    Raises:
        RuntimeError: another process holds it.
        FileExistsError: the folder holds other things than a run.
    """
    _check_folder(run_dir)
    with locks.hold(
        os.path.join(run_dir, LOCK),
        "is training there",
        "Wait for it, or choose another --run_dir.",
    ):
        yield


def open_run(
    run_dir: str,
    flags: Mapping[str, object],
    facts: Mapping[str, object],
    *,
    restart: bool,
    defaults: Mapping[str, object] | None = None,
) -> None:
    """Writes the flags of a new run, or checks that it is the same run.

    Of a run that goes on nothing is changed: its checkpoint is yet to be read.

    Args:
        run_dir: Its folder, locked.
        flags: Name and value of every flag that makes the run what it is.
        facts: What flags do not tell: `manifest_sha256`, `order`, `input` and
            `precision`.
        restart: Removes what an earlier run left there.
        defaults: Of `flags`: what a run had whose file lacks one of them,
            because it is older than the flag.

    Raises:
        OSError: the folder cannot be read.
        ValueError: the folder is that of a run with other flags, on other data,
            in another order or precision, or of one that is damaged or has lost
            its checkpoints. Nothing is changed then.
    """
    os.makedirs(run_dir, exist_ok=True)
    if restart or not _has_begun(run_dir):
        _remove_run(run_dir)
        write_flags(run_dir, flags)
        return
    _refuse_other_run(os.path.join(run_dir, FLAGS), flags, defaults or {})
    _refuse_lost_checkpoints(run_dir)
    _refuse_other_facts(os.path.join(run_dir, ENVIRONMENT), facts)


def write_flags(run_dir: str, flags: Mapping[str, object]) -> None:
    """Writes the flags of a run as a flagfile."""
    lines = "".join(f"{line}\n" for line in _flag_lines(flags))
    files.write_text(os.path.join(run_dir, FLAGS), lines)


def owns(folder: str, name: str) -> bool:
    """Returns whether a folder is that of a run, and the name one of its own."""
    return name in {*_OWNED, FLAGS, LOCK} and os.path.isfile(
        os.path.join(folder, FLAGS)
    )


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
    """Returns the flags of a run, as text; none where no file tells them."""
    try:
        with open(os.path.join(run_dir, FLAGS), encoding="utf-8") as file:
            lines = list(file)
    except FileNotFoundError:
        return {}
    pairs = [line.strip().removeprefix("--").split("=", 1) for line in lines]
    found = {pair[0]: pair[-1] for pair in pairs if pair[0]}
    missing = {"model", "train_splits", "validation_splits"} - found.keys()
    if missing:
        raise ValueError(
            f"{run_dir}: found no --{min(missing)} in {FLAGS}, expected the"
            " flags of a run. Train again."
        )
    return found


def read_manifest_sha256(run_dir: str) -> str | None:
    """Returns the hash of the records of a run; None where no file tells it."""
    path = os.path.join(run_dir, ENVIRONMENT)
    try:  # Runs of long ago tell no order.
        return _parse_starts(path, ("manifest_sha256",))[0]["manifest_sha256"]
    except FileNotFoundError:
        return None


def write_environment(run_dir: str, facts: Mapping[str, object]) -> None:
    """Adds a start of the run: versions, machine, git commit and `facts`."""
    path = os.path.join(run_dir, ENVIRONMENT)
    starts = _read_starts(path)
    now = datetime.datetime.now(datetime.UTC)
    starts.append(
        {
            "started_at": now.isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": versions.find(_PACKAGES),
            "git_commit": _git_commit(),
            **facts,
        }
    )
    files.write_text(path, json.dumps({"starts": starts}, indent=1) + "\n")


def make_input_cache(run_dir: str) -> None:
    """Makes an empty folder for cached records: old ones may be half written."""
    remove_input_cache(run_dir)
    os.mkdir(os.path.join(run_dir, INPUT_CACHE))


def remove_input_cache(run_dir: str) -> None:
    """Removes cached records, which are of no use to another process."""
    shutil.rmtree(os.path.join(run_dir, INPUT_CACHE), ignore_errors=True)


def write_history(run_dir: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes the scores of every epoch; no wall-clock value is among them."""
    path = os.path.join(run_dir, HISTORY)
    if rows:
        # Rows of a run that older code began may lack a column.
        columns = list({name: None for row in rows for name in row})
        csv_files.write_csv(
            path, columns, [list(map(row.get, columns)) for row in rows]
        )
    elif os.path.exists(path):
        os.remove(path)


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


def _check_folder(run_dir: str) -> None:
    if not os.path.lexists(run_dir):
        return
    if os.path.isdir(run_dir):
        if os.path.isfile(os.path.join(run_dir, FLAGS)):
            return
        if not set(os.listdir(run_dir)) - {*_OWNED, FLAGS, LOCK}:
            return
    raise FileExistsError(
        f"{run_dir}: found something that is no run, expected a folder to make,"
        " or that of a run to resume. Choose another --run_dir."
    )


def _has_begun(run_dir: str) -> bool:
    """Returns whether there is anything of a run that could be lost."""
    folder = os.path.join(run_dir, CHECKPOINTS)
    has_checkpoint = bool(checkpoint_files.list_checkpoints(folder))
    return has_checkpoint or not {BEST_MODEL, HISTORY}.isdisjoint(
        os.listdir(run_dir)
    )


def _refuse_lost_checkpoints(run_dir: str) -> None:
    """Refuses a run that has been through an epoch, and so had a checkpoint."""
    folder = os.path.join(run_dir, CHECKPOINTS)
    if checkpoint_files.list_checkpoints(folder):
        return
    if HISTORY in os.listdir(run_dir):
        raise ValueError(
            f"{folder}: found no checkpoint, expected those of the run that"
            f" {HISTORY} tells of. Put them back from a copy, or pass --restart"
            " to begin anew."
        )


def _refuse_other_run(
    path: str, flags: Mapping[str, object], defaults: Mapping[str, object]
) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            before = {line.strip() for line in file}
    except FileNotFoundError as error:
        raise ValueError(
            f"{path}: not found, expected it beside the checkpoints of a run."
            " Pass --restart to begin anew."
        ) from error
    known = set(map(_flag_name, before))
    before |= {
        line for line in _flag_lines(defaults) if _flag_name(line) not in known
    }
    now = set(_flag_lines(flags))
    if _only_goes_further(before, now):
        return
    differing = {_flag_name(line) for line in before ^ now} - set(_FREE)
    if differing:
        names = ", ".join(f"--{name}" for name in sorted(differing))
        had = [line for line in sorted(before - now)
               if _flag_name(line) in differing]  # fmt: skip
        raise ValueError(
            f"{path}: found a run that differs in {names} (it had"
            f" {' '.join(had) or 'the default'}). Give the same flags to"
            " resume it, another --run_dir, or --restart to begin anew."
        )


def _refuse_other_facts(path: str, facts: Mapping[str, object]) -> None:
    starts = _read_starts(path)
    if not starts:
        return
    first = starts[0]
    for name, what, remedy in (
        ("manifest_sha256", "other records, of manifest SHA-256",
         "Check --records_dir"),
        ("order", "patches in another order,",
         _order_remedy(first, facts)),
        ("precision", "another precision,",
         f"Pass --precision={first['precision']}"),
    ):  # fmt: skip
        if first[name] != facts[name]:
            raise ValueError(
                f"{path}: found that the run began with {what} {first[name]},"
                f" expected {facts[name]}. {remedy}, or pass --restart to begin"
                " anew."
            )


def _order_remedy(
    first: Mapping[str, object], facts: Mapping[str, object]
) -> str:
    remedy = f"Pass --input={first['input']}"
    if "service" in first["order"]:
        return f"{remedy} and --data_service"
    if "service" in facts["order"]:
        return f"{remedy} without --data_service"
    return remedy


def _read_starts(path: str) -> list[dict[str, object]]:
    try:
        return _parse_starts(path, _FACTS)
    except FileNotFoundError:
        return []


def _parse_starts(path: str, names: Sequence[str]) -> list[dict[str, object]]:
    """Returns the starts that a file tells of, at least one, with these facts."""
    with open(path, encoding="utf-8") as file:
        try:
            starts = json.load(file)["starts"]
            for start in (starts[0], starts[-1]):
                if missing := set(names) - dict(start).keys():
                    raise KeyError(min(missing))
            return starts
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: found no starts of a run ({type(error).__name__}:"
                f" {error}), expected the JSON that `pcam train` writes. Put it"
                " back from a copy, or run pcam train anew with --restart."
            ) from error


def _only_goes_further(before: set[str], now: set[str]) -> bool:
    """Returns whether all that differs is that there are more epochs.

    The positions of a run go on without end; a schedule does not.
    """
    differing = {_flag_name(line) for line in before ^ now} - set(_FREE)
    if differing != {"epochs"} or "--schedule=constant" not in now:
        return False
    old, new = (
        next(int(line.split("=")[1]) for line in lines
             if _flag_name(line) == "epochs")
        for lines in (before, now)
    )  # fmt: skip
    return new > old


def _flag_name(line: str) -> str:
    return line.removeprefix("--").split("=", 1)[0]


def _remove_run(run_dir: str) -> None:
    for name in (*_OWNED, FLAGS):  # The last: without it this is no run.
        path = os.path.join(run_dir, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)


def _git_commit() -> str | None:
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
