"""What an exported file says of itself."""

from typing import Any

import pcam_tfdata
from pcam_tfdata import schema
from pcam_tfdata.evaluation import metrics, operating_point
from pcam_tfdata.runs import environment_file, reading

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
    """Returns what JSON can hold of a network and of how to use it.

    `temperature` and `intercept` are None where no calibration is known, and
    `scores` where `pcam evaluate` has none of this network with these views.

    Args:
        run_dir: Folder of the run.
        model_sha256: Of its best model.
        tta: Of which views the logit is the mean, one of `choices.TTA`.
        point: Its calibration, and the threshold to note.
    """
    run = reading.read_run(run_dir, "")
    starts = environment_file.read_starts(run_dir)
    own = run.evaluations.get("", {})
    calibration = {"temperature": None, "intercept": None}
    if point.calibration:
        calibration = point.calibration._asdict()
    return {
        "model": run.flags.get("model"),
        "labels": list(schema.CLASS_NAMES),
        "input": "RGB patches, uint8 [N, 96, 96, 3]",
        "output": f"probability of {schema.CLASS_NAMES[-1]}, float32 [N]",
        "patch_size": schema.PATCH_SIZE,
        "tta": tta,
        **calibration,
        "threshold": point.threshold,
        "model_sha256": model_sha256,
        "manifest_sha256": run.columns.get("dataset"),
        "members": starts[-1].get("members", []) if starts else [],
        "scores": {name: own[name] for name in _SCORES if name in own}
        if own.get("tta") == tta
        else None,
        "pcam_tfdata": pcam_tfdata.__version__,
    }
