"""What was tried: the runs in a folder, read from their files."""

import contextlib
import csv
import dataclasses
import glob
import json
import math
import operator
import os
import statistics
from collections.abc import Iterator
from typing import Any

from pcam_tfdata.records import manifest
from pcam_tfdata.runs import checkpoint_files, environment_file, run_folder
from pcam_tfdata.system import faults

BEST_SCORE = "val_auc"
SPEED = "patches/s"
_STALE = "stale"
# What reading a file of any other form than that of a run's may raise.
_OTHER_FORM = (
    AttributeError, IndexError, KeyError, OverflowError, RecursionError,
    TypeError, csv.Error,
)  # fmt: skip


@dataclasses.dataclass
class Run:
    """What is known of a run.

    Attributes:
        columns: Values by name. `run`, its path from the folder in which runs
            were looked for; `state`; `epoch`, the last; `best_epoch`, that of
            the best `val_auc`; `dead_epochs`, after which the network was dead,
            as "2 of 3". Scores of the best epoch begin with `val_`, what else
            is known of it with `train_`. `patches/s` is the median over epochs.
            What `pcam evaluate` found begins with `eval_`; of other splits or
            records than those of the run's own validation, the name of their
            folder follows, behind a colon. `eval_mark` says what is wrong with
            scores: `stale`, of an earlier network; of `other records` than the
            run's; of splits that it was `trained on`; `unverified`, of a
            network or records that no file tells. `dataset`, `commit`,
            `started_at`, `starts`, `devices` and `resolved_precision` tell of
            data, code and machine.
        is_best_dead: Whether training found the network of its best epoch dead.
        flags: As text, by name.
        evaluations: What `pcam evaluate` found of the best model as it is, as
            `metrics.json` has it, by its folder in the run's; "" for the run's.
        notes: What could not be read, and why.
    """

    columns: dict[str, Any]
    is_best_dead: bool = False
    flags: dict[str, str] = dataclasses.field(default_factory=dict)
    evaluations: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def read_runs(runs_dir: str) -> list[Run]:
    """Returns all runs at or below a folder, in the order of their names.

    Links to folders are not followed: a run is listed once.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    folders = sorted(
        folder
        for folder, _, names in os.walk(runs_dir)
        if run_folder.FLAGS in names
    )
    if not folders:
        raise FileNotFoundError(
            f"{runs_dir}: found no run, expected folders with a"
            f" {run_folder.FLAGS}, as `pcam train` makes them. Check --runs_dir."
        )
    return [
        read_run(folder, os.path.relpath(folder, runs_dir))
        for folder in folders
    ]


def read_run(run_dir: str, run_name: str) -> Run:
    """Returns what is known of a run; a damaged file is noted, not an error."""
    run = read_training(run_dir, run_name)
    pattern = os.path.join(run_folder.EVALUATIONS, "*", run_folder.METRICS_JSON)
    names = [
        *glob.glob(run_folder.METRICS_JSON, root_dir=run_dir),
        *sorted(glob.glob(pattern, root_dir=run_dir)),
    ]
    model_sha256 = None
    if names:
        with noted(run, run_dir, run_folder.BEST_MODEL) as path:
            model_sha256 = manifest.hash_file(path)
    for name in names:
        with noted(run, run_dir, name) as path:
            with open(path, encoding="utf-8") as file:
                _add_evaluation(run, name, json.load(file), model_sha256)
    return run


def read_training(run_dir: str, name: str = "") -> Run:
    """Returns what is known of a run, but for its evaluations."""
    run = Run({"run": name, "state": "", BEST_SCORE: None})
    with noted(run, run_dir, run_folder.FLAGS):
        run.flags = run_folder.read_flags(run_dir)
    with noted(run, run_dir, run_folder.HISTORY) as path:
        _add_history(run, path)
    with noted(run, run_dir, run_folder.TIMING) as path:
        column = "train_patches_per_second"
        if speeds := [row[column] for row in _read_numbers(path)]:
            run.columns[SPEED] = statistics.median(speeds)
    with noted(run, run_dir, run_folder.ENVIRONMENT):
        if starts := environment_file.read_starts(run_dir):
            run.columns |= _summarize_starts(starts)
    run.columns["state"] = _describe_state(run, run_dir)
    return run


@contextlib.contextmanager
def noted(run: Run, run_dir: str, name: str) -> Iterator[str]:
    """Yields the path of a file; what is wrong with it becomes a note."""
    path = os.path.join(run_dir, name)
    try:
        yield path
    except FileNotFoundError:
        return
    except OSError as error:
        run.notes.append(f"{name}: {error.strerror or error}")
    except ValueError as error:
        text = faults.one_line(error).removeprefix(f"{path}: ")
        run.notes.append(f"{name}: {text.removesuffix('.')}")
    except _OTHER_FORM as error:
        kind = type(error).__name__
        run.notes.append(f"{name}: found another form ({kind}: {error})")


def _add_history(run: Run, path: str) -> None:
    """Adds the last epoch, and the best one as training chose it."""
    rows = _read_numbers(path)
    if any(math.isnan(row["epoch"]) for row in rows):
        raise ValueError("found no epoch in a line")
    run.columns["epoch"] = rows[-1]["epoch"] if rows else 0
    scored = [row for row in rows if not math.isnan(row[BEST_SCORE])]
    if not scored:
        return
    # The first of them.
    best = max(scored, key=operator.itemgetter(BEST_SCORE))
    run.is_best_dead = best.get(run_folder.IS_DEAD) == 1
    run.columns["best_epoch"] = best["epoch"]
    num_dead = sum(row.get(run_folder.IS_DEAD) == 1 for row in rows)
    if num_dead:
        run.columns["dead_epochs"] = f"{num_dead} of {len(rows)}"
    for name, value in best.items():
        if name.startswith("val_"):
            run.columns[name] = value
        elif name not in ("epoch", run_folder.IS_DEAD):
            run.columns[f"train_{name}"] = value


def _summarize_starts(starts: list[dict[str, Any]]) -> dict[str, object]:
    commits = {start.get("git_commit") or "": None for start in starts}
    return {
        "dataset": str(starts[0]["manifest_sha256"]),
        "commit": ",".join(filter(None, commits)),
        "started_at": str(starts[0].get("started_at", "")),
        "starts": len(starts),
        "devices": ",".join(starts[-1].get("devices", ())),
        "resolved_precision": str(starts[-1].get("precision", "")),
    }


def _add_evaluation(
    run: Run, path: str, scores: dict[str, Any], model_sha256: str | None
) -> None:
    """Adds the scores of an evaluation, whose path is from the run's folder."""
    mark = _mark(model_sha256, run, scores)
    values: dict[str, Any] = {
        "auc": None,
        "mark": mark,
        "splits": ",".join(scores["splits"]),
    }
    values |= {n: v for n, v in scores.items() if isinstance(v, (int, float))}
    if scores.get("model_sha256", "") == model_sha256:
        run.evaluations[os.path.dirname(path)] = scores
    evaluation = os.path.basename(os.path.dirname(path))
    suffix = f":{evaluation}" if evaluation else ""
    run.columns |= {f"eval_{key}{suffix}": n for key, n in values.items()}
    if _STALE in mark:
        run.notes.append(
            f"{path}: scores of an earlier {run_folder.BEST_MODEL}, evaluate"
            " again"
        )


def _mark(model_sha256: str | None, run: Run, scores: dict[str, Any]) -> str:
    """Returns what is wrong with scores, in a few words; none if nothing is."""
    scored, dataset = scores.get("model_sha256"), run.columns.get("dataset")
    train_splits = run_folder.list_splits(run.flags, "train_splits")
    marks = {
        "unverified": None in (model_sha256, scored, dataset),
        _STALE: None not in (model_sha256, scored) and model_sha256 != scored,
        "other records": dataset is not None
        and scores.get("manifest_sha256", dataset) != dataset,
        "trained on": set(scores["splits"]) & set(train_splits),
    }
    return ", ".join(mark for mark, is_so in marks.items() if is_so)


def _read_numbers(path: str) -> list[dict[str, float]]:
    """Returns the rows of a CSV of numbers, NaN where nothing stands.

    Raises:
        AttributeError, ValueError: it was cut short, or is not of this form.
    """
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if not text.endswith("\n"):
        raise ValueError("found no end of the last line: it was cut short")
    return [
        {name: _parse_number(value) for name, value in row.items()}
        for row in csv.DictReader(text.splitlines(), restval="no value")
    ]


def _parse_number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text or "nan")


def _describe_state(run: Run, run_dir: str) -> str:
    """Returns how far a run has come, as far as its files can be read."""
    if any(note.startswith(run_folder.HISTORY) for note in run.notes):
        return "unknown"
    epoch, epochs = run.columns.get("epoch", 0), run.flags.get("epochs", "?")
    if run.flags.get("model") == run_folder.ENSEMBLE:
        return "finished"
    if not epoch and "dataset" not in run.columns:
        return "not begun"
    is_last = epochs.isdecimal() and epoch >= int(epochs)
    # Early stopping ends a run for good.
    if is_last or checkpoint_files.is_stopped(run_dir):
        return "finished"
    return f"epoch {epoch} of {epochs}"
