"""A run with its predictions, as a page tells of it."""

import dataclasses
import os
import shlex
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.evaluation import calibration, metrics
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import (
    calibration_file,
    predictions_file,
    reading,
    run_folder,
)
from pcam_tfdata.system import faults


@dataclasses.dataclass(frozen=True)
class ScoredRun:
    """A run and what it predicted.

    Attributes:
        run_dir: Its folder.
        folder: Where its scores are.
        training: What training left; `notes` tell what could not be read.
        predictions: Of the splits that were scored.
        is_own: Whether the records are those that it was trained on.
        is_current: Whether the predictions are of its network as it is.
        logit: Calibrated, float64; as they come where no calibration is known.
        fair: Probabilities by a calibration of other patches; None for none.
    """

    run_dir: str
    folder: str
    training: reading.Run
    predictions: predictions_file.Predictions
    is_own: bool
    is_current: bool
    logit: np.ndarray
    fair: np.ndarray | None

    @property
    def probability(self) -> np.ndarray:
        """Probabilities of label 1, float64, from `logit`."""
        return metrics.to_probability(self.logit)

    def interval(self, name: str) -> tuple[float, float] | None:
        """Returns the 95% interval that `pcam evaluate` gave a score, if any."""
        return self.predictions.facts["intervals"].get(name)


def name_folders(run_dirs: Sequence[str]) -> dict[str, str]:
    """Returns folders of runs by name; those of folds for a cross-validation's."""
    folders: dict[str, str] = {}
    for run_dir in run_dirs:
        inner = [run_dir]
        if os.path.isfile(os.path.join(run_dir, run_folder.CROSS_VALIDATION)):
            names = sorted(os.listdir(run_dir))
            inner = [os.path.join(run_dir, name) for name in names]
            inner = [f for f in inner if run_folder.owns(f, run_folder.FLAGS)]
        for folder in inner:
            name = os.path.basename(os.path.abspath(folder))
            folders[faults.escape(folder if name in folders else name)] = folder
    return folders


def open_run(
    name: str,
    run_dir: str,
    records: records_folder.RecordsFolder,
    splits: Sequence[str] = (),
) -> ScoredRun:
    """Returns a run with the predictions of splits, none for its validation's.

    Raises:
        FileNotFoundError, ValueError: the run or its predictions are not there,
            damaged, or of other records.
    """
    training = reading.read_run(run_dir, name)
    dataset = training.columns.get("dataset")
    is_own = dataset == records.manifest_sha256
    # Where no file tells, scores in the run's folder are taken for its own.
    other = "" if is_own or not dataset else records.manifest_sha256
    own_splits = run_folder.list_splits(training.flags, "validation_splits")
    wanted = splits or own_splits
    folder = run_folder.name_evaluation(run_dir, wanted, own_splits, other)
    folders = f"--records_dir={records.path}", f"--run_dir={run_dir}"
    chosen = [f"--splits={','.join(splits)}"] * bool(splits)
    call = shlex.join(["pcam", "evaluate", *folders, *chosen])
    predictions = predictions_file.read_folder(folder, f"Run {call}")
    facts, _, label, plain, slide = predictions
    if facts.get("manifest_sha256") != records.manifest_sha256:
        raise ValueError(
            f"{folder}: found predictions of other records, expected those of"
            f" {records.path}. Run {call}"
        )
    model = manifest.hash_file(run_folder.find_model(run_dir))
    known = calibration_file.Calibration(
        facts.get("temperature") or 1.0, facts.get("intercept") or 0.0
    )
    logit, fair = known.apply(plain), None
    if folder == run_dir:
        fair = metrics.to_probability(
            calibration.cross_fit(label, plain, slide)
        )
    elif facts.get("temperature") and set(own_splits).isdisjoint(wanted):
        fair = metrics.to_probability(logit)
    return ScoredRun(
        run_dir, folder, training, predictions, is_own,
        model == facts["model_sha256"], logit, fair,
    )  # fmt: skip
