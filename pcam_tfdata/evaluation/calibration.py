"""Calibration by a temperature and an intercept (Platt 1999). No I/O.

`label` is int [num_patches], 0 or 1, and `logit` float [num_patches], finite.
"""

import numpy as np
from scipy import optimize, special

from pcam_tfdata.evaluation import bootstrap, metrics
from pcam_tfdata.runs import calibration_file

# Of a temperature. Guo et al. (2017) found 0.9 to 3.5; what is far from it tells
# more of few patches, or of a dead network, than of calibration.
BOUNDS = (0.1, 10.0)
_NUM_FOLDS = 5


def fit(label: np.ndarray, logit: np.ndarray) -> calibration_file.Calibration:
    """Returns the calibration of the greatest likelihood, with Platt's targets.

    Where n patches have a label, each counts as (n + 1) / (n + 2) of it and as
    the rest of the other one: so much is not sure, and logits that part the
    labels without a mistake have a best temperature. The temperature stays in
    `BOUNDS`; the intercept is free. Where all labels are the same, logits stay.
    """
    label, logit = np.asarray(label) == 1, np.asarray(logit, np.float64)
    if label.all() or not label.any():
        return calibration_file.Calibration()
    num_ones, num_zeros = np.sum(label), np.sum(~label)
    target = np.where(
        label, (num_ones + 1) / (num_ones + 2), 1 / (num_zeros + 2)
    )

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the mean cross entropy, and its derivatives."""
        slope, intercept = line
        changed = slope * logit + intercept
        entropy = np.logaddexp(0, changed) - target * changed
        excess = special.expit(changed) - target
        slopes = np.array([np.mean(excess * logit), np.mean(excess)])
        return float(np.mean(entropy)), slopes

    low, high = BOUNDS
    result = optimize.minimize(
        loss,
        (1.0, 0.0),
        jac=True,
        bounds=[(1 / high, 1 / low), (None, None)],
        options={"ftol": 0, "gtol": 1e-9},
    )
    slope, intercept = map(float, result.x)
    return calibration_file.Calibration(1 / slope, intercept)


def cross_fit(
    label: np.ndarray, logit: np.ndarray, slide: np.ndarray | None = None
) -> np.ndarray:
    """Returns logits, each with a calibration of other patches.

    Patches are dealt into 5 folds, or as many as there are slides, and each fold
    takes the calibration that is fitted on the others; so scores of what comes
    back are not of what was fitted. Patches of one `slide` share a fold; without
    slides, each patch is dealt for itself.

    Returns:
        float64 [num_patches]; a single slide keeps its logits.
    """
    unit = bootstrap.number_units(len(label), slide)
    num_units = int(unit.max()) + 1
    folds = np.arange(num_units) % min(_NUM_FOLDS, num_units)
    fold = np.random.default_rng(0).permutation(folds)[unit]
    calibrated = np.array(logit, np.float64)
    for number in range(int(fold.max()) + 1):
        own = fold == number
        calibrated[own] = fit(label[~own], logit[~own]).apply(logit[own])
    return calibrated


def score(
    label: np.ndarray,
    calibrated: np.ndarray | None,
    known: calibration_file.Calibration | None,
) -> metrics.Scores:
    """Returns a run's calibration, and the NLL and ECE of calibrated logits.

    What there is not is None. `calibrated` are logits by a calibration that was
    not fitted on them, and `known` is the one that the run has.
    """
    nll = ece = None
    if calibrated is not None:
        nll = metrics.nll(label, calibrated)
        ece = metrics.ece(label, metrics.to_probability(calibrated))
    return {
        "temperature": known.temperature if known else None,
        "intercept": known.intercept if known else None,
        "nll_calibrated": nll,
        "ece_calibrated": ece,
    }
