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
    order = name_arrays.shuffle(names, seed)
    is_single = counts[order].sum(1) == 1
    fold_of_group = np.empty(len(names), np.int64)
    _fill(fold_of_group, order[~is_single], counts, num_folds)
    _deal(fold_of_group, order[is_single], counts, num_folds)
    return fold_of_group[group]


def _fill(
    fold_of_group: np.ndarray,
    order: np.ndarray,
    counts: np.ndarray,
    num_folds: int,
) -> None:
    """Gives each group to the fold where it adds least to the imbalance.

    Greedy descent on the sum over folds and labels of (share of the label)^2,
    the largest groups first.
    """
    sizes = counts[order].sum(1)
    order = order[np.argsort(-sizes, kind="stable")]
    shares = counts[order] / np.maximum(counts.sum(0), 1)
    filled = np.zeros((num_folds, 2))
    for group, share in zip(order, shares, strict=True):
        overlap, size = filled @ share, filled.sum(1)
        # Of equals the emptiest, so that no fold stays empty.
        fold = np.lexsort((size, overlap))[0]
        filled[fold] += share
        fold_of_group[group] = fold


def _deal(
    fold_of_group: np.ndarray,
    order: np.ndarray,
    counts: np.ndarray,
    num_folds: int,
) -> None:
    """Deals single patches like cards, one label after the other.

    The emptiest fold begins, so that no fold stays empty.
    """
    sizes = np.zeros(num_folds)
    is_large = counts.sum(1) > 1
    np.add.at(sizes, fold_of_group[is_large], counts[is_large].sum(1))
    folds = np.argsort(sizes, kind="stable")
    dealt = order[np.argsort(counts[order, 1], kind="stable")]
    fold_of_group[dealt] = folds[np.arange(len(dealt)) % num_folds]
