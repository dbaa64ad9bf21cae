"""k-fold cross-validation: a run for each fold, scored on that fold alone.

Each run is a process of its own, `pcam train` and then `pcam evaluate`: what one
leaves in TensorFlow does not reach the next, and what is trained is kept.
"""

import functools
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pcam_tfdata import schema
from pcam_tfdata.evaluation import metrics, plots
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import outputs, run_folder
from pcam_tfdata.system import (
    csv_files,
    files,
    interruption,
    pictures,
    progress,
)

OUT_OF_FOLD = "out_of_fold.csv"
SUSPECTS_PLOT = "suspects.png"
_NUM_SUSPECTS = 60  # Ten rows of the picture.
_COLUMNS = ["row", "id", "fold", "label", "probability"]
# `pcam` in a process that ends when this one does, by SIGKILL too: it would go on
# to hold the GPU and the lock. What would follow it is for this one to do.
_PROGRAM = (
    "import logging; from pcam_tfdata.__main__ import main;"
    " logging.getLogger('pcam_tfdata.cli.next_step').disabled = True;"
    " from pcam_tfdata.system import workers;"
    " workers.end_with_writer_of_stdin(); main.run()"
)

Summary = dict[str, Any]
_logger = logging.getLogger(__name__)


def cross_validate(
    *,
    records_dir: str,
    run_dir: str,
    folds: Sequence[str] = (),
    train_flags: Sequence[str] = (),
) -> Summary:
    """Trains on all folds but one, and scores that one, for each in turn.

    Writes `cross_validation.json` and `out_of_fold.csv`, in which each patch has
    the probability that the network which did not see it gives; and the patches
    whose labels these contradict most, as `suspects.csv` and a picture: errors of
    the network, or of the label. The same command again trains what is missing.

    Args:
        records_dir: Records folder.
        run_dir: Folder of the runs, one for each fold, named after it.
        folds: Labelled splits; none for all.
        train_flags: Flags of `pcam train`, as --name=value, for each run;
            without folders and splits.

    Returns:
        Scores by name: in `folds` of each; in `mean` and `std` (of a sample)
        over folds; in `pooled_auc` the AUC of all out-of-fold patches together.

    Raises:
        FileNotFoundError, ValueError: records or folds do not fit.
        RuntimeError: a run failed, and has said why.
    """
    records = records_folder.open_folder(records_dir)
    folds = _settle_folds(folds, records)
    outputs.check_folder(run_dir, "--run_dir")
    os.makedirs(run_dir, exist_ok=True)
    tables = []
    for number, fold in enumerate(folds, 1):
        _logger.info("%s (%d of %d):", fold, number, len(folds))
        others = ",".join(other for other in folds if other != fold)
        flags = [f"--train_splits={others}", *train_flags]
        fold_dir = os.path.join(run_dir, fold)
        tables.append(_run_fold(records_dir, fold_dir, fold, flags))
    table = _name_rows(records, pd.concat(tables))
    csv_files.write_frame(os.path.join(run_dir, OUT_OF_FOLD), table[_COLUMNS])
    _write_suspects(run_dir, records, table)
    summary = _summarize(table)
    files.write_json(
        os.path.join(run_dir, run_folder.CROSS_VALIDATION), summary
    )
    return summary


def format_summary(summary: Summary) -> str:
    """Returns the scores as a table of text."""
    rows = summary["folds"] | {"mean": summary["mean"], "std": summary["std"]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    pooled = f"AUC of all out-of-fold patches: {summary['pooled_auc']:.4f}"
    return f"{table.to_string(float_format='{:.4f}'.format)}\n\n{pooled}\n"


def _settle_folds(
    folds: Sequence[str], records: records_folder.RecordsFolder
) -> list[str]:
    names = list(folds) or [
        split.name for split in records.content.splits if split.labeled
    ]
    splits = records.content.select(names)
    if len(names) < 2:
        raise ValueError(
            f"--folds: found {','.join(names)}, expected at least two different"
            " splits."
        )
    for split in splits:
        if not all(records.count_labels([split.name])):
            raise ValueError(
                f"--folds: found {split.name} without patches of both labels,"
                " expected both: the AUC needs them."
            )
    return names


def _run_fold(
    records_dir: str, run_dir: str, fold: str, train_flags: Sequence[str]
) -> pd.DataFrame:
    """Returns `row`, `label`, `logit` and `fold` of a fold's patches.

    A network that was trained before is scored once more: an evaluation of other
    splits may have been put there, or the network may have been trained on since.
    """
    folders = (f"--records_dir={records_dir}", f"--run_dir={run_dir}")
    _call("train", *folders, f"--validation_splits={fold}", *train_flags)
    # Refused where the records are no longer those of the run.
    _call("evaluate", *folders, f"--splits={fold}", f"--output_dir={run_dir}")
    path = os.path.join(run_dir, run_folder.PREDICTIONS)
    return pd.read_csv(path, float_precision="round_trip").assign(fold=fold)


def _call(command: str, *arguments: str) -> None:
    """Runs a command; a signal is handed on, so that it makes its checkpoint."""
    program = [sys.executable, "-c", _PROGRAM, command, *arguments]
    program += ["--quiet"] * progress.is_quiet()
    # A session of its own: Ctrl-C on a terminal would come twice.
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, start_new_session=True
    ) as child:
        try:
            code = child.wait()
        except BaseException as error:
            child.send_signal(interruption.find_signal(error) or signal.SIGTERM)
            child.wait()
            raise
    if code:
        raise RuntimeError(
            f"pcam {command} ended with exit code {code}, expected 0. Mend what"
            " it says; the same command goes on from there."
        )


def _summarize(table: pd.DataFrame) -> Summary:
    by_fold = {
        fold: metrics.score(part.label.to_numpy(), part.logit.to_numpy())
        for fold, part in table.groupby("fold", sort=False)
    }
    scores = pd.DataFrame.from_dict(by_fold, orient="index")
    scores = scores[list(metrics.NAMES)]
    return {
        "folds": scores.to_dict(orient="index"),
        "mean": scores.mean().to_dict(),
        "std": scores.std().to_dict(),
        "pooled_auc": metrics.auc(
            table.label.to_numpy(), table.logit.to_numpy()
        ),
    }


def _name_rows(
    records: records_folder.RecordsFolder, table: pd.DataFrame
) -> pd.DataFrame:
    """Returns predictions in the order of rows, with ids and probabilities."""
    names = records.read_sidecar(["source_name"])["source_name"].to_numpy()
    return table.sort_values("row", ignore_index=True).assign(
        id=lambda t: names[t.row],
        probability=lambda t: metrics.to_probability(t.logit.to_numpy()),
    )


def _write_suspects(
    run_dir: str, records: records_folder.RecordsFolder, table: pd.DataFrame
) -> None:
    """Writes the patches that contradict their labels, the gravest first."""
    against = table.logit.where(table.label == schema.NEGATIVE, -table.logit)
    order = against.sort_values(ascending=False, kind="stable").index
    suspects = table.loc[order[:_NUM_SUSPECTS]]
    path_of = functools.partial(os.path.join, run_dir)
    csv_files.write_frame(path_of(run_folder.SUSPECTS), suspects[_COLUMNS])
    everything = records_folder.Selection(tuple(records.list_shards()))
    images = everything.read_images(suspects.row.to_numpy())
    drawing = plots.draw_patches(images, suspects.label.to_numpy())
    pictures.save(drawing, path_of(SUSPECTS_PLOT))
