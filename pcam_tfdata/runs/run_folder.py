"""The files of a run folder: their names, and those that hold lines of text."""

import os
import shutil
from collections.abc import Mapping, Sequence

from pcam_tfdata.system import csv_files, files, locks

BEST_MODEL = "best.keras"
# Keras wants the ending, so it is the beginning that differs.
INCOMPLETE_MODEL = "incomplete.keras"
INPUT_CACHE = "input_cache"
BAD_BATCH = "bad_batch.npz"
CALIBRATION = "calibration.json"
CHECKPOINTS = "checkpoints"
ENVIRONMENT = "environment.json"
ENSEMBLE = "ensemble"  # The --model of a run that is made of others.
EVALUATIONS = "evaluations"
EXPLANATIONS = "explanations"
EXPLANATIONS_JSON = "explanations.json"
FLAGS = "flags.txt"
HISTORY = "history.csv"
MODEL_CARD = "model_card.md"
CROSS_VALIDATION = "cross_validation.json"  # Beside the runs of its folds.
IS_DEAD = "is_dead"  # In the history: 1 for an epoch that a dead network ends.
HISTORY_PLOT = "history.png"
TIMING = "timing.csv"
TENSORBOARD = "tensorboard"
METRICS_JSON = "metrics.json"
METRICS_TEXT = "metrics.txt"
PREDICTIONS = "predictions.csv"
SLIDES = "slides.csv"
STRESS = "stress.csv"
STRESS_PLOT = "stress.png"
ROC_PLOT = "roc.png"
CONFUSION_PLOT = "confusion.png"
_PLOTS = (CONFUSION_PLOT, HISTORY_PLOT, ROC_PLOT, STRESS_PLOT)
SUSPECTS = "suspects.csv"  # Beside the runs of folds, too.
_MADE = (
    BAD_BATCH, BEST_MODEL, CALIBRATION, CHECKPOINTS, ENVIRONMENT, EVALUATIONS,
    EXPLANATIONS, EXPLANATIONS_JSON, HISTORY, INCOMPLETE_MODEL, INPUT_CACHE,
    METRICS_JSON, METRICS_TEXT, MODEL_CARD, PREDICTIONS, SLIDES, STRESS, TENSORBOARD, TIMING,
    *_PLOTS, *(name.replace(".png", ".svg") for name in _PLOTS),
)  # fmt: skip
# A process that was killed leaves what it was writing.
OWNED = (*_MADE, *(f"{name}{files.INCOMPLETE}" for name in (*_MADE, FLAGS)))


def owns(folder: str, name: str) -> bool:
    """Returns whether a folder is that of a run, and the name one of its own."""
    return name in {*OWNED, FLAGS, locks.LOCK} and os.path.isfile(
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


def write_flags(run_dir: str, flags: Mapping[str, object]) -> None:
    """Writes the flags of a run as a flagfile."""
    lines = [f"--{name}={text}\n" for name, text in to_text(flags).items()]
    files.write_text(os.path.join(run_dir, FLAGS), "".join(lines))


def to_text(flags: Mapping[str, object]) -> dict[str, str]:
    """Returns flags as a flagfile has them; those that are None have no line."""

    def as_text(value: object) -> str:
        if isinstance(value, (list, tuple)):
            return ",".join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {
        name: as_text(value)
        for name, value in flags.items()
        if value is not None
    }


def read_flags(run_dir: str) -> dict[str, str]:
    """Returns the flags of a run, as text; none where no file tells them.

    Raises:
        ValueError: the file lacks a flag that every run has.
    """
    path = os.path.join(run_dir, FLAGS)
    try:
        with open(path, encoding="utf-8") as file:
            pairs = [line.strip()[2:].partition("=") for line in file]
    except FileNotFoundError:
        return {}
    flags = {name: value for name, _, value in pairs if name}
    missing = {"model", "train_splits", "validation_splits"} - flags.keys()
    if missing:
        raise ValueError(
            f"{path}: found no --{min(missing)}, expected the flags of a run."
            " Train again."
        )
    return flags


def list_splits(flags: Mapping[str, str], name: str) -> list[str]:
    """Returns the splits that a flag of a run names, as `train_splits`."""
    return [split for split in flags.get(name, "").split(",") if split]


def name_evaluation(
    run_dir: str, splits: Sequence[str], own_splits: Sequence[str], other: str
) -> str:
    """Returns where scores of splits go: its own validation's to the run's folder.

    `other` is the hash of the records, if they are not the run's; else "".
    """
    if not other and set(splits) == set(own_splits):
        return run_dir
    name = "+".join(sorted(splits)) + f"@{other[:8]}".rstrip("@")
    return os.path.join(run_dir, EVALUATIONS, name)


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
    with open(path, "a", encoding="utf-8") as file:
        if not file.tell():
            file.write(",".join(row) + "\n")
        file.write(",".join(map(str, row.values())) + "\n")
