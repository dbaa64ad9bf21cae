"""From logits to what a submission says of them."""

import logging
from typing import NamedTuple

from pcam_tfdata.evaluation import metrics, thresholds
from pcam_tfdata.prediction import configuration
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import calibration_file, predictions_file, run_folder

_logger = logging.getLogger(__name__)


class Scale(NamedTuple):
    """How logits become probabilities, and these labels.

    Attributes:
        temperature: What divides logits first; None where it is not wanted or
            not known.
        threshold: None for probabilities; else a probability at or above it
            gives 1.
    """

    temperature: float | None = None
    threshold: float | None = None


def read_scale(options: configuration.PredictOptions) -> Scale:
    """Returns the scale of a run's best model, from the run's files.

    Raises:
        FileNotFoundError, ValueError: a threshold has to be chosen, and there
            are no predictions of validation patches by this model; or a file is
            damaged.
    """
    temperature, threshold = None, options.threshold
    tta = options.forward.tta
    if options.calibrated:
        path = run_folder.find_model(options.run_dir)
        sha256 = manifest.hash_file(path)
        kept = calibration_file.read(options.run_dir, tta, sha256)
        temperature = kept.temperature if kept else None
    if isinstance(threshold, thresholds.Wanted):
        validation = predictions_file.read(options.run_dir, tta)
        wanted, threshold = (
            threshold,
            thresholds.choose(
                threshold,
                validation.label,
                metrics.to_probability(validation.logit, temperature or 1.0),
            ),
        )
        _logger.info(
            "Threshold %.6g, for a %s of %g on %s.",
            threshold, wanted.name, wanted.rate,
            ", ".join(validation.facts["splits"]),
        )  # fmt: skip
    return Scale(temperature, threshold)
