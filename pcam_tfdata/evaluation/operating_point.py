"""What a run's validation splits say of its logits, from the run's files."""

import logging
from typing import NamedTuple

import numpy as np

from pcam_tfdata.evaluation import metrics, thresholds
from pcam_tfdata.runs import calibration_file, predictions_file

_logger = logging.getLogger(__name__)


class OperatingPoint(NamedTuple):
    """How logits become probabilities, and these labels.

    Attributes:
        calibration: That of logits; None where it is not wanted or not known.
        threshold: Labels are 1 where the probability that follows is at or
            above it; None for none.
    """

    calibration: calibration_file.Calibration | None = None
    threshold: float | None = None

    def calibrate(self, logit: np.ndarray) -> np.ndarray:
        """Returns probabilities, float64; as they come without a calibration."""
        known = self.calibration or calibration_file.Calibration()
        return metrics.to_probability(known.apply(logit))


def read(
    run_dir: str,
    model_sha256: str,
    tta: str,
    threshold: float | thresholds.Wanted | None = None,
    *,
    is_calibrated: bool = True,
) -> OperatingPoint:
    """Returns the operating point of a run's best model.

    Args:
        run_dir: Folder of the run.
        model_sha256: Of its best model.
        tta: How patches are viewed, one of `choices.TTA`.
        threshold: A probability, or what it has to reach.
        is_calibrated: Whether calibrated probabilities are wanted.

    Raises:
        FileNotFoundError, ValueError: a threshold has to be chosen, and there
            are no predictions of validation patches by this model; or a file is
            damaged.
    """
    calibration = None
    if is_calibrated:
        calibration = calibration_file.read(run_dir, tta, model_sha256)
    if isinstance(threshold, thresholds.Wanted):
        validation = predictions_file.read(run_dir, tta)
        threshold = thresholds.choose(
            threshold,
            validation.label,
            OperatingPoint(calibration).calibrate(validation.logit),
        )
        splits = ", ".join(validation.facts["splits"])
        _logger.info("Threshold %.6g, chosen on %s.", threshold, splits)
    return OperatingPoint(calibration, threshold)
