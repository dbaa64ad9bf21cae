"""Scores from labels and logits: exact, by scikit-learn. No I/O.

`label` is int [num_patches], 0 or 1, and `logit` float [num_patches]. A logit at or
above the `boundary` predicts 1.
"""

from typing import Any

import numpy as np
from sklearn import metrics as sklearn_metrics

from pcam_tfdata import schema

NUM_BINS = 15  # As in Guo et al. 2017.
SPECIFICITY = 0.95
# The scores that are one number each, in the order of a report.
RANKING_NAMES = ("auc", "average_precision", "sensitivity_at_95_specificity")
NAMES = (*RANKING_NAMES, "accuracy", "nll", "brier", "ece")

Scores = dict[str, Any]  # By the names that `metrics.json` has.


def to_probability(logit: np.ndarray) -> np.ndarray:
    """Returns the probability of label 1 as float64, same shape.

    In float64, so that large logits keep their order: in float32 all above 17
    are 1.
    """
    logit = np.asarray(logit, np.float64)
    return np.exp(-np.logaddexp(0, -logit))


def score(
    label: np.ndarray, logit: np.ndarray, boundary: float = 0.0
) -> Scores:
    """Returns all scores of one set of predictions.

    Returns:
        `num_patches`, each of `NAMES`, where the `RANKING_NAMES` are None if all
        labels are equal, scikit-learn's `classification_report`, and
        `confusion_matrix`, whose rows are true, columns predicted labels, 0
        before 1.
    """
    probability = to_probability(logit)
    predicted = (logit >= boundary).astype(int)
    average_precision = None
    if not _one_class(label):
        # Of the logit: probabilities of large ones are 1 alike.
        average_precision = float(
            sklearn_metrics.average_precision_score(label, logit)
        )
    labels = (schema.NEGATIVE, schema.POSITIVE)
    return {
        "num_patches": len(label),
        "auc": auc(label, logit),
        "average_precision": average_precision,
        "sensitivity_at_95_specificity": sensitivity_at_specificity(
            label, logit
        ),
        "accuracy": float(np.mean(predicted == label)),
        "nll": nll(label, logit),
        "brier": float(np.mean((probability - label) ** 2)),
        "ece": ece(label, probability),
        "confusion_matrix": sklearn_metrics.confusion_matrix(
            label, predicted, labels=labels
        ).tolist(),
        "classification_report": sklearn_metrics.classification_report(
            label,
            predicted,
            labels=labels,
            target_names=schema.CLASS_NAMES,
            output_dict=True,
            zero_division=0,
        ),
    }


def score_fractions(known: np.ndarray, estimated: np.ndarray) -> Scores:
    """Returns the mean absolute error of tumor fractions, and the correlation.

    Both are float [num_patches], in [0, 1]. None where there are none; no
    correlation (Pearson's) where all are equal.
    """
    error = correlation = None
    if len(known):
        error = float(np.mean(np.abs(known - estimated)))
    if len(known) and np.ptp(known) and np.ptp(estimated):
        correlation = float(np.corrcoef(known, estimated)[0, 1])
    return {"fraction_mae": error, "fraction_correlation": correlation}


def auc(label: np.ndarray, logit: np.ndarray) -> float | None:
    """Returns the area under the ROC curve; None where all labels are equal."""
    if _one_class(label):
        return None
    return float(sklearn_metrics.roc_auc_score(label, logit))


def sensitivity_at_specificity(
    label: np.ndarray, logit: np.ndarray, specificity: float = SPECIFICITY
) -> float | None:
    """Returns the highest sensitivity at no less than a specificity; or None.

    Of the thresholds that there are: patches of one logit are above a threshold
    or below it together, and nothing is interpolated between.
    """
    if _one_class(label):
        return None
    false_rate, true_rate, _ = sklearn_metrics.roc_curve(
        label, logit, drop_intermediate=False
    )
    return float(true_rate[false_rate <= max_false_rate(specificity)].max())


def max_false_rate(specificity: float) -> float:
    """Returns the false positive rate up to which a specificity is reached.

    A little is added: 1 - 0.9 is below 0.1 in floating point.
    """
    return 1 - specificity + 1e-12


def ece(label: np.ndarray, probability: np.ndarray) -> float:
    """Returns the expected calibration error of the probability of label 1.

    Patches fall into 15 bins of equal width by their probability of label 1;
    of each bin, the difference between the mean probability and the share of
    label 1; of these, the mean over patches (Naeini et al. 2015). Guo et al.
    2017 bin the probability of the predicted class instead.
    """
    gap = np.bincount(bin_of(probability), probability - label)
    return float(np.abs(gap).sum() / len(label))


def bin_of(probability: np.ndarray) -> np.ndarray:
    """Returns the bin of each probability, int64; 1 is in the last."""
    bins = np.floor(np.asarray(probability) * NUM_BINS).astype(np.int64)
    return np.minimum(bins, NUM_BINS - 1)


def nll(label: np.ndarray, logit: np.ndarray) -> float:
    """Returns the mean negative log likelihood, in nats."""
    logit = np.asarray(logit, np.float64)
    return float(np.mean(np.logaddexp(0, logit) - label * logit))


def _one_class(label: np.ndarray) -> bool:
    return len(np.unique(label)) < len(schema.CLASS_NAMES)
