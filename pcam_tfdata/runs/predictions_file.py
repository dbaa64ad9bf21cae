"""What `pcam evaluate` wrote of a run's own validation splits, read back."""

import json
import os
from typing import Any, NamedTuple

import numpy as np
import pandas

from pcam_tfdata.records import manifest
from pcam_tfdata.runs import run_folder

COLUMNS = ("row", "label", "logit")
SLIDE = "slide"


class Predictions(NamedTuple):
    """Logits of validation patches, by row.

    Attributes:
        facts: What `metrics.json` says of them.
        row: int64 [num_patches], of the records' sidecar.
        label: int64 [num_patches], 0 or 1.
        logit: float64 [num_patches].
        slide: str [num_patches], or None where slides are unknown.
    """

    facts: dict[str, Any]
    row: np.ndarray
    label: np.ndarray
    logit: np.ndarray
    slide: np.ndarray | None


def read(run_dir: str, tta: str | None = None) -> Predictions:
    """Returns the predictions of a run's best model on its validation splits.

    Args:
        run_dir: Folder of the run.
        tta: How patches have to be viewed, one of `choices.TTA`; None for any.

    Raises:
        FileNotFoundError: there are none, or there is no model.
        ValueError: they are of an earlier model or other views, or damaged.
    """
    model_sha256 = manifest.hash_file(run_folder.find_model(run_dir))
    path = os.path.join(run_dir, run_folder.PREDICTIONS)
    remedy = "Run pcam evaluate on the run's validation splits."
    if tta:
        remedy = (
            f"Run pcam evaluate --tta={tta} on the run's validation splits."
        )
    try:
        json_path = os.path.join(run_dir, run_folder.METRICS_JSON)
        with open(json_path, encoding="utf-8") as file:
            facts = json.load(file)
        sha256 = manifest.hash_file(path)
        scored, written = facts["model_sha256"], facts["predictions_sha256"]
        viewed = facts["tta"]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename}: not found, expected predictions of validation"
            f" patches. {remedy}"
        ) from error
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{json_path}: found no scores ({type(error).__name__}: {error}),"
            f" expected the JSON that pcam evaluate writes. {remedy}"
        ) from error
    if scored != model_sha256:
        raise ValueError(
            f"{path}: found predictions of an earlier network, expected those of"
            f" {run_folder.BEST_MODEL}. {remedy}"
        )
    if written != sha256:
        raise ValueError(
            f"{path}: found SHA-256 {sha256}, expected {written}, that of"
            f" {run_folder.METRICS_JSON}. {remedy}"
        )
    if tta not in (None, viewed):
        raise ValueError(
            f"{path}: found predictions with test-time augmentation {viewed},"
            f" expected {tta}. {remedy}"
        )
    table = pandas.read_csv(
        path, float_precision="round_trip", na_filter=False, dtype={SLIDE: str}
    ).sort_values("row")
    row, label, logit = (table[name].to_numpy() for name in COLUMNS)
    slide = table[SLIDE].to_numpy(str) if SLIDE in table else None
    return Predictions(facts, row, label, logit, slide)
