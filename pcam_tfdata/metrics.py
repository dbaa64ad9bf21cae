"""Scores from labels and logits: exact, by scikit-learn. No I/O."""

import numpy as np
from sklearn import metrics as sklearn_metrics

from pcam_tfdata import schema


def to_probability(logit: np.ndarray) -> np.ndarray:
    """Returns the probability of label 1 as float64, same shape.

    In float64, so that large logits keep their order: in float32 all above 17
    are 1.
    """
    logit = np.asarray(logit, np.float64)
    return np.exp(-np.logaddexp(0, -logit))


def score(
    label: np.ndarray, logit: np.ndarray, threshold: float = 0.5
) -> dict[str, object]:
    """Returns all scores of one set of predictions.

    Args:
        label: int [num_patches], 0 or 1.
        logit: float [num_patches].
        threshold: A probability at or above it predicts 1.

    Returns:
        `num_patches`; `auc` and `average_precision` (None where all labels are
        equal); `accuracy`; `nll` (mean negative log likelihood, nats); `brier`;
        `confusion_matrix` (rows true, columns predicted, 0 before 1);
        `classification_report`, a dict a class.
    """
    probability = to_probability(logit)
    predicted = (probability >= threshold).astype(int)
    labels = (schema.NEGATIVE, schema.POSITIVE)
    both = len(np.unique(label)) == len(labels)
    return {
        "num_patches": len(label),
        "threshold": threshold,
        "auc": auc(label, logit),
        "average_precision": float(
            sklearn_metrics.average_precision_score(label, probability)
        )
        if both
        else None,
        "accuracy": float(np.mean(predicted == label)),
        "nll": nll(label, logit),
        "brier": float(np.mean((probability - label) ** 2)),
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


def auc(label: np.ndarray, logit: np.ndarray) -> float | None:
    """Returns the area under the ROC curve; None where all labels are equal."""
    if len(np.unique(label)) < len(schema.CLASS_NAMES):
        return None
    return float(sklearn_metrics.roc_auc_score(label, logit))


def nll(label: np.ndarray, logit: np.ndarray) -> float:
    """Returns the mean negative log likelihood, in nats."""
    logit = np.asarray(logit, np.float64)
    return float(np.mean(np.logaddexp(0, logit) - label * logit))
