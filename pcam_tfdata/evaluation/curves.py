"""Bands of curves, and counts at thresholds, without a sort for each. No I/O.

`label` is int [num_patches], 0 or 1, both there; `logit` float [num_patches].
"""

from typing import Any

import numpy as np
from scipy import sparse

from pcam_tfdata.evaluation import bootstrap, metrics

MOST_POINTS = 501
_NUM_CELLS = 500  # Of logits, for bands.


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most 501 points of a line, evenly along it."""
    steps = np.abs(np.diff(x)) + np.abs(np.diff(y))
    length = np.append(0, np.cumsum(steps))
    wanted = np.linspace(0, length[-1], MOST_POINTS)
    chosen = np.unique(np.searchsorted(length, wanted).clip(0, len(x) - 1))
    return x[chosen], y[chosen]


def compute_bands(
    label: np.ndarray,
    logit: np.ndarray,
    slide: np.ndarray | None = None,
    num_resamples: int = 500,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns pointwise 95% bands, of a bootstrap over slides, else patches.

    Logits are parted into at most 500 cells at their quantiles, so that a
    resample is a sum of counts, not a sort. Those of one label are left out.

    Returns:
        The grid, float64 [101] from 0 to 1; by false positive rate, the lowest
        and highest true positive rate, [2, 101]; by recall, the precision.
    """
    edges = np.unique(np.quantile(logit, np.linspace(0, 1, _NUM_CELLS)[1:-1]))
    # From the highest logit to the lowest, as thresholds fall.
    cell = 2 * (len(edges) - np.searchsorted(edges, logit, "right")) + label
    num_cells = 2 * (len(edges) + 1)
    rng = np.random.default_rng(0)
    if slide is None:
        share = np.bincount(cell, minlength=num_cells) / len(label)
        counts = rng.multinomial(len(label), share, num_resamples)
    else:
        unit = bootstrap.number_units(len(label), slide)
        shape = int(unit.max()) + 1, num_cells
        by_unit = sparse.coo_array((np.ones(len(unit)), (unit, cell)), shape)
        share = np.full(shape[0], 1 / shape[0])
        drawn = rng.multinomial(shape[0], share, num_resamples)
        counts = drawn @ by_unit.tocsr()
    total = np.cumsum(counts.reshape(num_resamples, -1, 2), axis=1)
    grid, found = np.linspace(0, 1, 101), []
    for false, true in total[(total[:, -1] > 0).all(axis=1)].transpose(0, 2, 1):
        recall = true / true[-1]
        ends = np.append(0, false / false[-1]), np.append(0, recall)
        roc = np.interp(grid, *ends)
        precision = true / np.maximum(true + false, 1)
        reached, first = np.unique(recall, return_index=True)
        precision = np.interp(grid, reached, precision[first])
        precision[0] = precision[1]  # Of recall 0 there is none.
        found.append((roc, precision))
    tail = (1 - bootstrap.LEVEL) / 2
    bands = np.quantile(found, (tail, 1 - tail), axis=0)
    return grid, bands[:, 0], bands[:, 1]


def count_by_threshold(
    label: np.ndarray, probability: np.ndarray
) -> dict[str, Any]:
    """Returns how many patches are predicted 1 at thresholds of probabilities.

    Returns:
        `thresholds`, at most 501 rising numbers of six digits, with 0, 0.5 and 1
        among them: evenly spaced, and at quantiles of the probabilities; and
        exactly how many probabilities of patches of label 1 (`true`) and of
        label 0 (`false`) are at or above each.
    """
    quantiles = np.quantile(np.unique(probability), np.linspace(0, 1, 250))
    digits = [float(f"{value:.6g}") for value in quantiles]
    thresholds = np.unique([*np.arange(251) / 250, *digits])
    table = {"thresholds": thresholds.tolist()}
    for name, one in (("true", 1), ("false", 0)):
        own = np.sort(probability[label == one])
        table[name] = (len(own) - np.searchsorted(own, thresholds)).tolist()
    return table


def compute_reliability(
    label: np.ndarray, probability: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean probability and share of label 1 of each bin of the ECE."""
    number = metrics.bin_of(probability)
    bins, count = np.unique(number, return_counts=True)
    sums = np.bincount(number, probability), np.bincount(number, label)
    return sums[0][bins] / count, sums[1][bins] / count
