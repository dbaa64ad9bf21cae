"""Scores of each slide that patches were cut from."""

import numpy as np
import pandas

from pcam_tfdata.evaluation import metrics

COLUMNS = (
    "slide", "num_patches", "num_positive", "auc", "accuracy",
    "mean_probability", "nll",
)  # fmt: skip


def score_slides(
    slide: np.ndarray, label: np.ndarray, logit: np.ndarray, boundary: float
) -> list[tuple[object, ...]]:
    """Returns the scores of each slide, a row of `COLUMNS`, by name.

    Args:
        slide: str [num_patches].
        label: int [num_patches], 0 or 1.
        logit: float [num_patches].
        boundary: A logit at or above it predicts 1.

    Returns:
        Rows; the AUC is None on a slide whose labels are all equal.
    """
    rows: list[tuple[object, ...]] = []
    for name, patches in pandas.Series(slide).groupby(slide).indices.items():
        own_label, own_logit = label[patches], logit[patches]
        rows.append(
            (
                name,
                len(patches),
                int(own_label.sum()),
                metrics.auc(own_label, own_logit),
                float(np.mean((own_logit >= boundary) == own_label)),
                float(metrics.to_probability(own_logit).mean()),
                metrics.nll(own_label, own_logit),
            )
        )
    return rows
