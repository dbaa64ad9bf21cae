"""What was tried: the runs in a folder, read from their files.

Neither TensorFlow nor pandas is imported, so that a hundred runs are read at
once.
"""

import dataclasses
import functools
import json
import logging
import math
import os
import statistics
from collections.abc import Callable, Sequence

from pcam_tfdata.records import manifest
from pcam_tfdata.runs import checkpoint_files, run_folder

BEST_SCORE = "val_auc"
SPEED = "patches/s"
_STALE = "stale"
# Folders inside a run's that hold no run.
_PASSED_OVER = (
    run_folder.CHECKPOINTS, run_folder.EVALUATIONS, run_folder.INPUT_CACHE,
    run_folder.TENSORBOARD,
)  # fmt: skip
# What reading JSON of any other form than that of a run may raise.
_OTHER_FORM = (
    AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError,
)  # fmt: skip

_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Run:
    """What is known of a run: values by column, in groups.

    Attributes:
        name: Path, from the folder in which runs were looked for.
        progress: `state`, `epoch` and `best_epoch`, that of the best val_auc;
            `dead_epochs` where the network was dead after some, as "2 of 3".
        validation: `val_auc` and the other `val_` scores of the best epoch.
        evaluated: What `pcam evaluate` found, as `eval_` and its name; of
            splits or records that are not those of the run's own validation,
            with a colon and the name of their folder behind. `eval_mark` says
            what is wrong with scores: `stale`, of an earlier network; of `other
            records` than the run's; of splits that it was `trained on`;
            `unverified`, of a network or records that no file tells.
        training: What else is known of the best epoch, as `train_` and its
            name; median of the epochs' training patches a second.
        origin: Data, code and machine.
        flags: As text, by name.
        notes: What could not be read, and why.
    """

    name: str
    progress: dict[str, object] = dataclasses.field(default_factory=dict)
    validation: dict[str, object] = dataclasses.field(default_factory=dict)
    evaluated: dict[str, object] = dataclasses.field(default_factory=dict)
    training: dict[str, object] = dataclasses.field(default_factory=dict)
    origin: dict[str, object] = dataclasses.field(default_factory=dict)
    flags: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def read_runs(runs_dir: str) -> list[Run]:
    """Returns all runs at or below a folder, in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    folders = find_runs(runs_dir)
    if not folders:
        raise FileNotFoundError(
            f"{runs_dir}: found no run, expected folders with a"
            f" {run_folder.FLAGS}, as `pcam train` makes them. Check --runs_dir."
        )
    return [
        read_run(folder, os.path.relpath(folder, runs_dir))
        for folder in folders
    ]


def find_runs(runs_dir: str) -> list[str]:
    """Returns the folders of all runs at or below a folder, sorted.

    Links to folders are not followed: a run is listed once.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not os.path.isdir(runs_dir):
        raise FileNotFoundError(
            f"{runs_dir}: not found, expected a folder with runs in it. Check"
            " --runs_dir."
        )
    found = []
    for folder, inner, names in os.walk(runs_dir, onerror=_warn):
        inner.sort()
        if run_folder.FLAGS in names:
            found.append(folder)
            inner[:] = [name for name in inner if name not in _PASSED_OVER]
    return found


def read_run(run_dir: str, name: str) -> Run:
    """Returns what is known of a run; a damaged file is noted, not an error."""
    run = _read_training(run_dir, name)
    # Last: what is known of the run says whether they are its scores.
    hash_model = functools.cache(functools.partial(_hash_model, run_dir))
    read = functools.partial(_read_metrics, run_dir, hash_model)
    _read_or_note(run, run_dir, run_folder.METRICS_JSON, read)
    for folder in _list_evaluations(run_dir):
        path = os.path.join(folder, run_folder.METRICS_JSON)
        _read_or_note(run, run_dir, path, read)
    return run


def find_unfinished(run_dir: str) -> str | None:
    """Returns how far a run came that is to go on, such as `epoch 2 of 20`.

    None of a run that has finished, and where its files do not tell.
    """
    run = _read_training(run_dir, run_dir)
    state = run.progress["state"]
    is_told = "epochs" in run.flags and state.startswith("epoch")
    return state if is_told else None


def _read_training(run_dir: str, name: str) -> Run:
    run = Run(name)
    for file_name, read in (
        (run_folder.FLAGS, _read_flags),
        (run_folder.HISTORY, _read_history),
        (run_folder.TIMING, _read_timing),
        (run_folder.ENVIRONMENT, _read_environment),
    ):
        _read_or_note(run, run_dir, file_name, read)
    run.progress = {"state": _state(run, run_dir)} | run.progress
    return run


def _list_evaluations(run_dir: str) -> list[str]:
    """Returns the folders of evaluations in a run's, from there."""
    try:
        names = os.listdir(os.path.join(run_dir, run_folder.EVALUATIONS))
    except OSError:
        return []
    return [
        os.path.join(run_folder.EVALUATIONS, name) for name in sorted(names)
    ]


def _read_or_note(
    run: Run, run_dir: str, name: str, read: Callable[[Run, str], None]
) -> None:
    path = os.path.join(run_dir, name)
    if not os.path.lexists(path):
        return
    try:
        read(run, path)
    except OSError as error:
        run.notes.append(f"{name}: {error.strerror}")
    except UnicodeDecodeError:
        run.notes.append(f"{name}: found bytes that are no text")
    except ValueError as error:
        told = " ".join(str(error).split()).removeprefix(f"{run_dir}: ")
        run.notes.append(f"{name}: {told.removesuffix('.')}")
    except _OTHER_FORM as error:
        run.notes.append(f"{name}: found JSON of another form ({error})")


def _read_flags(run: Run, path: str) -> None:
    run.flags = run_folder.read_flags(os.path.dirname(path))


def _read_history(run: Run, path: str) -> None:
    """Reads the last epoch, and the best one as training chose it."""
    rows = _read_numbers(path, ("epoch", BEST_SCORE))
    if not all(isinstance(row["epoch"], int) for row in rows):
        raise ValueError("found no epoch in a line")
    best = _find_best(rows)
    run.progress["epoch"] = rows[-1]["epoch"] if rows else 0
    if best is None:
        return
    run.progress["best_epoch"] = best["epoch"]
    num_dead = sum(row.get(run_folder.IS_DEAD) == 1 for row in rows)
    if num_dead:
        run.progress["dead_epochs"] = f"{num_dead} of {len(rows)}"
    run.validation[BEST_SCORE] = best[BEST_SCORE]
    for name, value in best.items():
        if name.startswith("val_"):
            run.validation[name] = value
        elif name not in ("epoch", run_folder.IS_DEAD):
            run.training[f"train_{name}"] = value


def _hash_model(run_dir: str) -> str | None:
    """Returns the SHA-256 of a run's best model; None where there is none."""
    path = os.path.join(run_dir, run_folder.BEST_MODEL)
    return manifest.hash_file(path) if os.path.isfile(path) else None


def is_best_dead(run_dir: str) -> bool:
    """Returns whether training found the network of its best epoch dead."""
    path = os.path.join(run_dir, run_folder.HISTORY)
    if not os.path.isfile(path):
        return False
    best = _find_best(_read_numbers(path, (BEST_SCORE,)))
    return best is not None and best.get(run_folder.IS_DEAD) == 1


def _find_best(rows: Sequence[dict[str, object]]) -> dict[str, object] | None:
    """Returns the epoch of the best score, the first of equal ones."""
    best = None
    for row in rows:
        score = row[BEST_SCORE]
        if _is_number(score) and (best is None or score > best[BEST_SCORE]):
            best = row
    return best


def _read_metrics(
    run_dir: str, hash_model: Callable[[], str | None], run: Run, path: str
) -> None:
    scores = _read_json(path)
    found = {"auc": None, "mark": _mark(hash_model(), run, scores)}
    found["splits"] = ",".join(scores["splits"])
    found |= {name: n for name, n in scores.items() if _is_number(n)}
    name = os.path.relpath(path, run_dir)
    evaluation = os.path.basename(os.path.dirname(name))
    of = f":{evaluation}" if evaluation else ""
    run.evaluated |= {f"eval_{key}{of}": n for key, n in found.items()}
    if _STALE in found["mark"]:
        run.notes.append(
            f"{name}: scores of an earlier {run_folder.BEST_MODEL}, evaluate"
            " again"
        )


def _mark(model: str | None, run: Run, scores: dict[str, object]) -> str:
    """Returns what is wrong with scores, in a few words; none if nothing is.

    Args:
        model: SHA-256 of the run's best model; None where there is none.
        run: With its origin and flags.
        scores: Of an evaluation.
    """
    scored, dataset = scores.get("model_sha256"), run.origin.get("dataset")
    train_splits = run.flags.get("train_splits", "").split(",")
    marks = {
        "unverified": None in (model, scored, dataset),
        _STALE: None not in (model, scored) and model != scored,
        "other records": dataset is not None
        and scores.get("manifest_sha256", dataset) != dataset,
        "trained on": set(scores["splits"]) & set(train_splits),
    }
    return ", ".join(mark for mark, is_so in marks.items() if is_so)


def _read_timing(run: Run, path: str) -> None:
    column = "train_patches_per_second"
    speeds = [row[column] for row in _read_numbers(path, (column,))]
    known = [speed for speed in speeds if _is_number(speed)]
    if known:
        run.training[SPEED] = statistics.median(known)


def _read_environment(run: Run, path: str) -> None:
    starts = _read_json(path)["starts"]
    commits = {start.get("git_commit") or "": None for start in starts}
    run.origin = {
        "dataset": str(starts[0]["manifest_sha256"]),
        "commit": ",".join(filter(None, commits)),
        "started_at": str(starts[0]["started_at"]),
        "starts": len(starts),
        "devices": ",".join(starts[-1].get("devices", ())),
        "resolved_precision": str(starts[-1].get("precision", "")),
    }


def _read_json(path: str) -> dict[str, object]:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _read_numbers(
    path: str, columns: tuple[str, ...]
) -> list[dict[str, float | None]]:
    """Returns the rows of a CSV of numbers, None where nothing stands.

    Raises:
        ValueError: it was cut short, or is not of this form.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if not text.endswith("\n"):
        raise ValueError("found no end of the last line: it was cut short")
    header, *rows = [line.split(",") for line in text.splitlines()]
    for column in columns:
        if column not in header:
            raise ValueError(f"found no column {column}")
    for line, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise ValueError(
                f"found {len(row)} values in line {line}, expected"
                f" {len(header)}"
            )
    return [
        dict(zip(header, map(_parse_number, row), strict=True)) for row in rows
    ]


def _parse_number(text: str) -> float | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else float(text)


def _is_number(value: object) -> bool:
    """Returns whether a value is a number; NaN is none."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and not math.isnan(value)


def _state(run: Run, run_dir: str) -> str:
    """Returns how far a run has come, as far as its files can be read."""
    if any(note.startswith(run_folder.HISTORY) for note in run.notes):
        return "unknown"
    epoch, epochs = run.progress.get("epoch", 0), run.flags.get("epochs", "?")
    if not epoch and not run.origin:
        return "not begun"
    if epochs.isdecimal() and epoch >= int(epochs):
        return "finished"
    # Early stopping ends a run for good.
    if checkpoint_files.is_stopped(
        os.path.join(run_dir, run_folder.CHECKPOINTS)
    ):
        return "finished"
    return f"epoch {epoch} of {epochs}"


def _warn(error: OSError) -> None:
    _logger.warning(
        "%s: %s, passed over.", error.filename, error.strerror.lower()
    )
