"""What a run's validation splits say of its logits, from the run's files."""

import logging
from typing import NamedTuple

from pcam_tfdata.evaluation import thresholds
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import calibration_file, predictions_file, run_folder

_logger = logging.getLogger(__name__)


class OperatingPoint(NamedTuple):
    """How logits become probabilities, and these labels.

    Attributes:
        temperature: What divides logits to calibrate them; None where it is not
            wanted or not known.
        threshold: A probability before that division, at or above which the
            label is 1; None for none.
    """

    temperature: float | None = None
    threshold: float | None = None


def read(
    run_dir: str,
    tta: str,
    threshold: float | thresholds.Wanted | None = None,
    *,
    is_calibrated: bool = True,
) -> OperatingPoint:
    """Returns the operating point of a run's best model.

    Args:
        run_dir: Folder of the run.
        tta: How patches are viewed, one of `choices.TTA`.
        threshold: Of the probabilities that are wanted, or what it has to reach.
        is_calibrated: Whether calibrated probabilities are wanted.

    Raises:
        FileNotFoundError, ValueError: a threshold has to be chosen, and there
            are no predictions of validation patches by this model; or a file is
            damaged.
    """
    temperature = None
    if is_calibrated:
        sha256 = manifest.hash_file(run_folder.find_model(run_dir))
        temperature = calibration_file.read(run_dir, tta, sha256)
    if isinstance(threshold, thresholds.Wanted):
        validation = predictions_file.read(run_dir, tta)
        threshold = thresholds.choose(
            threshold, validation.label, validation.logit
        )
        _logger.info(
            "Threshold %.6g, chosen on %s.",
            thresholds.rescale(threshold, 1 / (temperature or 1.0)),
            ", ".join(validation.facts["splits"]),
        )
    elif threshold is not None:
        threshold = thresholds.rescale(threshold, temperature or 1.0)
    return OperatingPoint(temperature, threshold)
