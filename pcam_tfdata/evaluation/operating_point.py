"""What a run's validation splits say of its logits, from the run's files."""

import logging
import math
import re
from typing import NamedTuple

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.evaluation import metrics
from pcam_tfdata.runs import calibration_file, predictions_file

_logger = logging.getLogger(__name__)
_WANTED = re.compile(r"(sensitivity|specificity):(.+)")


class Wanted(NamedTuple):
    """What a threshold of probabilities has to reach.

    Attributes:
        name: `sensitivity` or `specificity`.
        rate: Above 0, at most 1.
    """

    name: str
    rate: float


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

    def tell_uncalibrated(self, output: str, tta: str) -> None:
        """Says of an output where its probabilities have no calibration."""
        if self.calibration is None:
            _logger.info(
                "%s: probabilities are not calibrated: the run has no"
                " calibration for --tta=%s. Run pcam evaluate --tta=%s on the"
                " run's validation splits.",
                output, tta, tta,
            )  # fmt: skip


def read(
    run_dir: str,
    model_sha256: str,
    tta: str,
    threshold: float | Wanted | None = None,
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
    if isinstance(threshold, Wanted):
        validation = predictions_file.read(run_dir, tta)
        threshold = choose_threshold(
            threshold,
            validation.label,
            OperatingPoint(calibration).calibrate(validation.logit),
        )
        splits = ", ".join(validation.facts["splits"])
        _logger.info("Threshold %.6g, chosen on %s.", threshold, splits)
    return OperatingPoint(calibration, threshold)


def parse_threshold(text: str) -> float | Wanted:
    """Returns a probability, or what `sensitivity:0.95` means.

    Raises:
        ValueError: the text is neither.
    """
    wanted = _WANTED.fullmatch(text)
    try:
        number = float(wanted[2] if wanted else text)
    except ValueError:
        number = math.nan
    if wanted and 0 < number <= 1:
        return Wanted(wanted[1], number)
    if not wanted and 0 <= number <= 1:
        return number
    raise ValueError(
        f"found {text!r}, expected a probability, sensitivity:RATE or"
        " specificity:RATE, with numbers up to 1."
    )


def choose_threshold(
    wanted: Wanted, label: np.ndarray, probability: np.ndarray
) -> float:
    """Returns the threshold at or above which patches are predicted 1.

    The largest one that reaches a sensitivity, the smallest that reaches a
    specificity; equal probabilities are on one side of it.

    Args:
        wanted: What to reach.
        label: int [num_patches], 0 or 1.
        probability: float64 [num_patches].

    Raises:
        ValueError: no patch has the label whose rate is wanted.
    """
    by_sensitivity = wanted.name == "sensitivity"
    own = schema.POSITIVE if by_sensitivity else schema.NEGATIVE
    ordered = np.sort(probability[label == own])
    if not len(ordered):
        raise ValueError(
            f"--threshold={wanted.name}:{wanted.rate:g}: found no validation"
            f" patch of label {own}, expected one. Pass a probability."
        )
    rate = 1 - metrics.max_false_rate(wanted.rate)
    num_right = max(1, math.ceil(rate * len(ordered)))
    if by_sensitivity:
        return float(ordered[-num_right])
    # Just above the last patch that has to be below it.
    return float(np.nextafter(ordered[num_right - 1], np.inf))
