"""Calibration by a temperature, which divides logits (Guo et al. 2017). No I/O."""

import math
from typing import TypedDict

import numpy as np
from scipy import optimize, special

from pcam_tfdata.evaluation import bootstrap, metrics

# Guo et al. found 0.9 to 3.5; what is far from it tells more of few patches, or
# of a dead network, than of calibration.
BOUNDS = (0.1, 10.0)


class Scores(TypedDict):
    """Scores of logits that were divided by a temperature fitted elsewhere."""

    nll_calibrated: float | None
    ece_calibrated: float | None


def fit_temperature(label: np.ndarray, logit: np.ndarray) -> float:
    """Returns the temperature of the least negative log likelihood in `BOUNDS`.

    1 where all logits have the sign of their labels, or are 0: the less the
    temperature, the better then, and no patch tells how far to go. The upper
    bound where the logits rank worse than no logits.

    Args:
        label: int [num_patches], 0 or 1.
        logit: float [num_patches], finite.
    """
    label, logit = np.asarray(label, float), np.asarray(logit, np.float64)
    if np.all(np.where(label == 1, logit, -logit) >= 0):
        return 1.0

    def slope(log_temperature: float) -> float:
        """Returns the derivative by 1 / temperature, which grows with it."""
        probability = special.expit(logit * math.exp(-log_temperature))
        return float(np.mean(logit * (probability - label)))

    low, high = map(math.log, BOUNDS)
    if slope(low) <= 0:
        return BOUNDS[0]
    if slope(high) >= 0:
        return BOUNDS[1]
    return math.exp(optimize.brentq(slope, low, high))


def cross_fit(
    label: np.ndarray,
    logit: np.ndarray,
    slide: np.ndarray | None = None,
    num_folds: int = 5,
) -> np.ndarray:
    """Returns logits, each divided by a temperature of other patches.

    Patches are dealt into folds, and each fold takes the temperature that is
    fitted on the others; so scores of what comes back are not of what was fitted.

    Args:
        label: int [num_patches], 0 or 1.
        logit: float [num_patches], finite.
        slide: Slide of each patch, whose patches share a fold; None: each patch
            is dealt for itself.
        num_folds: At most; there are no more than slides or patches.

    Returns:
        float64 [num_patches]; a single slide keeps its logits.
    """
    unit = bootstrap.number_units(len(label), slide)
    num_units = int(unit.max()) + 1
    folds = np.arange(num_units) % min(num_folds, num_units)
    fold = np.random.default_rng(0).permutation(folds)[unit]
    calibrated = np.array(logit, np.float64)
    for number in range(int(fold.max()) + 1):
        own = fold == number
        calibrated[own] /= fit_temperature(label[~own], logit[~own])
    return calibrated


def score(label: np.ndarray, calibrated: np.ndarray | None) -> Scores:
    """Returns the scores of calibrated logits; None where there are none."""
    if calibrated is None:
        return {"nll_calibrated": None, "ece_calibrated": None}
    probability = metrics.to_probability(calibrated)
    return {
        "nll_calibrated": metrics.nll(label, calibrated),
        "ece_calibrated": metrics.ece(label, probability),
    }
