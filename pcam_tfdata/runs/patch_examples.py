"""Which patches of a split are worth a look."""

import numpy as np

# By name, in the order of a page.
GROUPS = ("surest_wrong", "least_sure", "surest_right")


def choose(
    label: np.ndarray, logit: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    """Returns positions of patches for each of `GROUPS`.

    Args:
        label: int64 [num_patches], 0 or 1.
        logit: float64 [num_patches], calibrated: at or above 0 predicts 1.
        count: How many of each group at most, half of them of either label.

    Returns:
        int64 arrays of positions in `label`, the most telling patch first. No patch
        is in two groups; of equal patches the first comes first.
    """
    is_right = (logit >= 0) == (label == 1)
    sureness = np.abs(logit)
    left = np.ones(len(label), bool)
    chosen = {}
    for name, key, allowed in (
        ("surest_wrong", -sureness, ~is_right),
        ("least_sure", sureness, left),
        ("surest_right", -sureness, is_right),
    ):
        order = np.argsort(key, kind="stable")
        order = order[(allowed & left)[order]]
        halves = [order[label[order] == one][: count // 2] for one in (1, 0)]
        picked = np.concatenate(halves)
        chosen[name] = picked[np.argsort(key[picked], kind="stable")]
        left[picked] = False
    return chosen
