"""What an exported file says of itself."""

from typing import Any

import pcam_tfdata
from pcam_tfdata import schema
from pcam_tfdata.evaluation import metrics, operating_point
from pcam_tfdata.runs import calibration_file, environment_file, reading

_SCORES = (
    "splits", "num_patches", "num_slides", "threshold", *metrics.NAMES,
    "nll_calibrated", "ece_calibrated", "intervals",
)  # fmt: skip


def describe(
    run_dir: str,
    model_sha256: str,
    tta: str,
    point: operating_point.OperatingPoint,
) -> dict[str, Any]:
    """Returns what a network is, and how to use it, in types of JSON.

    `scores` are those of `pcam evaluate` with these views; none are there where
    it has none of this network. `is_calibrated` says whether temperature and
    intercept are more than 1 and 0, for want of others.

    Args:
        run_dir: Folder of the run.
        model_sha256: Of its best model.
        tta: Of which views the logit is the mean, one of `choices.TTA`.
        point: Its calibration, and the threshold to note.
    """
    run = reading.read_run(run_dir, "")
    starts = environment_file.read_starts(run_dir)
    own = run.evaluations.get("", {})
    if own.get("tta") != tta:
        own = {}
    return {
        "model": run.flags.get("model"),
        "labels": list(schema.CLASS_NAMES),
        "patch_size": schema.PATCH_SIZE,
        "tta": tta,
        "is_calibrated": point.calibration is not None,
        **(point.calibration or calibration_file.Calibration())._asdict(),
        "threshold": point.threshold,
        "model_sha256": model_sha256,
        "manifest_sha256": run.columns.get("dataset"),
        "members": starts[-1].get("members", []) if starts else [],
        "scores": {name: own[name] for name in _SCORES if name in own},
        "pcam_tfdata": pcam_tfdata.__version__,
    }
