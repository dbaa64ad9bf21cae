"""Scores of each slide that patches were cut from."""

import numpy as np
import pandas

from pcam_tfdata.evaluation import metrics

COLUMNS = (
    "slide", "num_patches", "num_positive", "auc", "accuracy",
    "mean_probability", "nll",
)  # fmt: skip


def score_slides(
    slide: np.ndarray, label: np.ndarray, logit: np.ndarray, threshold: float
) -> list[tuple[object, ...]]:
    """Returns the scores of each slide, a row of `COLUMNS`, by name.

    Args:
        slide: str [num_patches].
        label: int [num_patches], 0 or 1.
        logit: float [num_patches].
        threshold: A probability at or above it predicts 1.

    Returns:
        Rows; the AUC is None on a slide whose labels are all equal.
    """
    groups = pandas.Series(slide).groupby(slide).indices
    return [
        (name, *_score(label[patches], logit[patches], threshold))
        for name, patches in groups.items()
    ]


def _score(
    label: np.ndarray, logit: np.ndarray, threshold: float
) -> tuple[object, ...]:
    probability = metrics.to_probability(logit)
    return (
        len(label),
        int(label.sum()),
        metrics.auc(label, logit),
        float(np.mean((probability >= threshold) == label)),
        float(probability.mean()),
        metrics.nll(label, logit),
    )
