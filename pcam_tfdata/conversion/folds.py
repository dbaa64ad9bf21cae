"""Which fold a patch goes to: grouped by slide, balanced by label. Pure."""

import numpy as np

from pcam_tfdata.system import name_arrays


def group_patches(ids: np.ndarray, slides: np.ndarray | None) -> np.ndarray:
    """Returns for each patch the name of the group that must share a fold.

    A group is a slide where slides are known, else an id. Slides that hold the
    same pixels (equal ids) are one group, named by the first of them in order
    of name.

    Args:
        ids: bytes [num_patches].
        slides: bytes [num_patches], or None.

    Returns:
        bytes [num_patches].
    """
    if slides is None:
        return ids
    names, slide = np.unique(slides, return_inverse=True)
    parent = list(range(len(names)))

    def root(slide: int) -> int:
        while parent[slide] != slide:
            parent[slide] = parent[parent[slide]]
            slide = parent[slide]
        return slide

    first = name_arrays.find_first(ids)
    is_copy = first != np.arange(len(ids))
    pairs = np.stack([slide[first[is_copy]], slide[is_copy]], 1)
    for pair in np.unique(pairs, axis=0).tolist():
        low, high = sorted(map(root, pair))
        parent[high] = low
    return names[np.array(list(map(root, parent)), np.int64)[slide]]


def assign_folds(
    groups: np.ndarray, labels: np.ndarray, *, num_folds: int, seed: int
) -> np.ndarray:
    """Returns the fold of each patch: grouped, balanced by label.

    Depends on the contents alone, never on the order of the arguments.

    Args:
        groups: bytes [num_patches]; patches of one group share a fold.
        labels: int [num_patches], 0 or 1.
        num_folds: How many folds.
        seed: Another seed gives other folds.

    Returns:
        int64 [num_patches], in [0, num_folds).

    Raises:
        ValueError: there are fewer groups than folds.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < num_folds:
        raise ValueError(
            f"found {len(names)} groups of patches that must stay together,"
            f" expected at least --num_folds={num_folds}. Ask for fewer folds."
        )
    counts = np.bincount(2 * group + labels, minlength=2 * len(names))
    counts = counts.reshape(-1, 2)
    sizes, shares = counts.sum(1), counts / np.maximum(counts.sum(0), 1)
    order = name_arrays.shuffle(names, seed)
    order = order[np.argsort(-sizes[order], kind="stable")]
    large, single = order[sizes[order] > 1], order[sizes[order] == 1]
    fold_of_group = np.empty(len(names), np.int64)
    fold_of_group[large] = _fill(shares[large], num_folds)
    # Single patches are dealt like cards, one label after the other. The
    # emptiest fold begins, so that no fold stays empty.
    filled = np.bincount(fold_of_group[large], sizes[large], num_folds)
    folds = np.argsort(filled, kind="stable")
    single = single[np.argsort(counts[single, 1], kind="stable")]
    fold_of_group[single] = folds[np.arange(len(single)) % num_folds]
    return fold_of_group[group]


def _fill(shares: np.ndarray, num_folds: int) -> list[int]:
    """Returns the fold of each group: where it adds least to the imbalance.

    Greedy descent on the sum over folds and labels of (share of the label)^2.

    Args:
        shares: float64 [num_groups, 2], the part that a group has of the
            patches of each label; the largest groups first.
        num_folds: How many folds.
    """
    filled = np.zeros((num_folds, 2))
    folds = []
    for share in shares:
        overlap, size = filled @ share, filled.sum(1)
        # Of equals the emptiest, so that no fold stays empty.
        folds.append(np.lexsort((size, overlap))[0])
        filled[folds[-1]] += share
    return folds
