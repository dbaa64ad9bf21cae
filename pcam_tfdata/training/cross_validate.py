"""k-fold cross-validation: a run for each fold, scored on that fold alone.

Each run is a process of its own, `pcam train` and then `pcam evaluate`: what one
leaves in TensorFlow does not reach the next, and what is finished is kept.
"""

import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.evaluation import metrics
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import outputs, run_folder
from pcam_tfdata.system import csv_files, files

OUT_OF_FOLD = "out_of_fold.csv"
SUMMARY = "cross_validation.json"
_COLUMN = max(map(len, metrics.NAMES)) + 2
# `pcam` in a process that ends when this one does, by SIGKILL too: it would go on
# to hold the GPU and the lock.
_PROGRAM = (
    "from pcam_tfdata.__main__ import main; from pcam_tfdata import workers;"
    " workers.end_with_writer_of_stdin(); main.run()"
)
_Row = tuple[int, int, float, str]  # Row in the sidecar, label, logit, fold.

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CrossValidateOptions:
    """What to cross-validate.

    Attributes:
        records_dir: Records folder.
        run_dir: Folder of the runs, one for each fold, named after it.
        folds: Labelled splits; none for all.
        train_flags: Of `pcam train`, as --name=value, for each run; without
            folders and splits.
    """

    records_dir: str
    run_dir: str
    folds: Sequence[str] = ()
    train_flags: Sequence[str] = ()


def cross_validate(options: CrossValidateOptions) -> dict[str, object]:
    """Trains on all folds but one, and scores that one, for each in turn.

    Writes `cross_validation.json` and `out_of_fold.csv`, in which each patch has
    the probability that the network which did not see it gives. The same command
    again goes on with what is missing.

    Returns:
        `folds`: scores of each; `mean` and `std` (of a sample) over folds;
        `pooled_auc`: of all out-of-fold probabilities together.

    Raises:
        FileNotFoundError, ValueError: records or folds do not fit.
        RuntimeError: a run failed, and has said why.
    """
    folds = _settle_folds(options)
    outputs.check_folder(options.run_dir, "--run_dir")
    os.makedirs(options.run_dir, exist_ok=True)
    rows = []
    for number, fold in enumerate(folds):
        _logger.info("%s (%d of %d):", fold, number + 1, len(folds))
        others = [other for other in folds if other != fold]
        rows += _run_fold(options, fold, others)
    _write_out_of_fold(options, rows)
    found = _summarize(folds, rows)
    path = os.path.join(options.run_dir, SUMMARY)
    files.write_text(path, json.dumps(found, indent=1) + "\n")
    return found


def format_summary(summary: dict[str, object]) -> str:
    """Returns the scores as a table of text."""
    header = f"{'':<12}" + "".join(
        f"{name:>{_COLUMN}}" for name in metrics.NAMES
    )
    rows = summary["folds"] | {"mean": summary["mean"], "std": summary["std"]}
    lines = [
        f"{name:<12}"
        + "".join(f"{scores[key]:>{_COLUMN}.4f}" for key in metrics.NAMES)
        for name, scores in rows.items()
    ]
    pooled = f"AUC of all out-of-fold patches: {summary['pooled_auc']:.4f}"
    return "\n".join([header, *lines, "", pooled]) + "\n"


def _settle_folds(options: CrossValidateOptions) -> list[str]:
    content = records_folder.open_folder(options.records_dir).content
    names = list(options.folds) or [
        split.name for split in content.splits if split.labeled
    ]
    splits = content.select(names)
    if len(set(names)) < max(2, len(names)):
        raise ValueError(
            f"--folds: found {','.join(names)}, expected at least two different"
            " splits."
        )
    for split in splits:
        if not (split.class_counts.get("0") and split.class_counts.get("1")):
            raise ValueError(
                f"--folds: found {split.name} without patches of both labels,"
                " expected both: the AUC needs them."
            )
    return names


def _run_fold(
    options: CrossValidateOptions, fold: str, others: Sequence[str]
) -> list[_Row]:
    """Returns what the network of a fold says of its patches."""
    run_dir = os.path.join(options.run_dir, fold)
    folders = (f"--records_dir={options.records_dir}", f"--run_dir={run_dir}")
    _call(
        "train",
        *folders,
        f"--train_splits={','.join(others)}",
        f"--validation_splits={fold}",
        *options.train_flags,
    )
    if not _is_scored(options, fold):
        _call("evaluate", *folders)
    if not _is_scored(options, fold):
        raise RuntimeError(
            f"{run_dir}: found scores of another network or other patches,"
            f" expected those of {fold}. Does another process write there? Run"
            " again."
        )
    path = os.path.join(run_dir, run_folder.PREDICTIONS)
    return [
        (int(row), int(label), float(logit), fold)
        for row, label, logit in csv_files.read_csv(
            path, ("row", "label", "logit")
        )
    ]


def _is_scored(options: CrossValidateOptions, fold: str) -> bool:
    """Returns whether the best network of a fold has scored that fold alone.

    An evaluation of other splits may have been put there, or the network may
    have been trained on since.
    """
    run_dir = os.path.join(options.run_dir, fold)
    predictions = os.path.join(run_dir, run_folder.PREDICTIONS)
    try:
        path = os.path.join(run_dir, run_folder.METRICS_JSON)
        with open(path, encoding="utf-8") as file:
            scores = json.load(file)
        model = run_folder.find_model(run_dir)
        records = records_folder.open_folder(options.records_dir)
        return scores["splits"] == [fold] and (
            scores["model_sha256"] == manifest.hash_file(model)
            and scores["manifest_sha256"] == records.manifest_sha256
            and scores["predictions_sha256"] == manifest.hash_file(predictions)
        )
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return False


def _call(command: str, *arguments: str) -> None:
    """Runs a command; a signal is handed on, so that it makes its checkpoint."""
    program = [sys.executable, "-c", _PROGRAM, command, *arguments]
    # A session of its own: Ctrl-C on a terminal would come twice.
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            code = child.wait()
        except BaseException as error:
            is_interrupt = isinstance(error, KeyboardInterrupt)
            child.send_signal(signal.SIGINT if is_interrupt else signal.SIGTERM)
            child.wait()
            raise
    if code:
        raise RuntimeError(
            f"pcam {command} ended with exit code {code}, expected 0. Mend what"
            " it says; the same command goes on from there."
        )


def _summarize(folds: Sequence[str], rows: Sequence[_Row]) -> dict[str, object]:
    scores = {}
    for name in folds:
        _, label, logit, _ = zip(
            *(row for row in rows if row[-1] == name), strict=True
        )
        found = metrics.score(np.array(label), np.array(logit))
        scores[name] = {key: found[key] for key in metrics.NAMES}
    table = np.array([list(found.values()) for found in scores.values()])
    _, label, logit, _ = zip(*rows, strict=True)
    return {
        "folds": scores,
        "mean": dict(zip(metrics.NAMES, table.mean(0).tolist(), strict=True)),
        "std": dict(
            zip(metrics.NAMES, table.std(0, ddof=1).tolist(), strict=True)
        ),
        "pooled_auc": metrics.auc(np.array(label), np.array(logit)),
    }


def _write_out_of_fold(
    options: CrossValidateOptions, rows: Sequence[_Row]
) -> None:
    records = records_folder.open_folder(options.records_dir)
    names = records.read_sidecar(["source_name"])["source_name"].tolist()
    probability = metrics.to_probability(np.array([row[2] for row in rows]))
    csv_files.write_csv(
        os.path.join(options.run_dir, OUT_OF_FOLD),
        ("row", "id", "fold", "label", "probability"),
        sorted(
            (row, names[row], fold, label, value)
            for (row, label, _, fold), value in zip(
                rows, probability.tolist(), strict=True
            )
        ),
    )
