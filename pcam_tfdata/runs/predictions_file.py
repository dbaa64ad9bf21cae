"""What `pcam evaluate` wrote of the patches of a run's splits, read back."""

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
    """Logits of patches, by row.

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
    evaluate = f"pcam evaluate --tta={tta}" if tta else "pcam evaluate"
    remedy = f"Run {evaluate} on the run's validation splits."
    return read_folder(run_dir, remedy, model_sha256, tta)


def read_folder(
    folder: str, remedy: str, model_sha256: str = "", tta: str | None = None
) -> Predictions:
    """Returns the predictions of an evaluation.

    Args:
        folder: Where `pcam evaluate` wrote it.
        remedy: A sentence that ends errors.
        model_sha256: Of the network that they have to be of; empty for any.
        tta: How patches have to be viewed, one of `choices.TTA`; None for any.

    Raises:
        FileNotFoundError, ValueError: as in `read`.
    """
    path = os.path.join(folder, run_folder.PREDICTIONS)
    try:
        json_path = os.path.join(folder, run_folder.METRICS_JSON)
        with open(json_path, encoding="utf-8") as file:
            facts = json.load(file)
        ", ".join(facts["splits"])  # All are text.
        facts["intervals"] = dict(facts.get("intervals") or {})
        for name in ("temperature", "intercept"):
            facts[name] = facts.get(name) and float(facts[name])
        sha256 = manifest.hash_file(path)
        checks = (
            ("an earlier network", facts["model_sha256"],
             model_sha256 or facts["model_sha256"]),
            ("another evaluation", sha256, facts["predictions_sha256"]),
            ("other views", facts["tta"], tta or facts["tta"]),
        )  # fmt: skip
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename}: not found, expected predictions of labelled"
            f" patches. {remedy}"
        ) from error
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{json_path}: found no scores ({type(error).__name__}: {error}),"
            f" expected the JSON that pcam evaluate writes. {remedy}"
        ) from error
    for other, found, expected in checks:
        if found != expected:
            raise ValueError(
                f"{path}: found predictions of {other}: {found}, expected"
                f" {expected}. {remedy}"
            )
    table = _read_table(path, remedy)
    row, label, logit = (table[name].to_numpy() for name in COLUMNS)
    slide = table[SLIDE].to_numpy(str) if SLIDE in table else None
    return Predictions(facts, row, label, logit, slide)


def _read_table(path: str, remedy: str) -> pandas.DataFrame:
    """Returns the rows of predictions in order; errors end with the remedy."""
    table = pandas.read_csv(
        path, float_precision="round_trip", na_filter=False, dtype={SLIDE: str}
    ).sort_values("row")
    is_sound = {*COLUMNS} <= {*table} and len(table)
    if not is_sound or not (
        np.isin(table["label"], (0, 1)).all()
        and np.isfinite(pandas.to_numeric(table["logit"], "coerce")).all()
    ):
        raise ValueError(
            f"{path}: expected rows of {', '.join(COLUMNS)}, with labels 0 and 1"
            f" and finite logits. {remedy}"
        )
    return table
