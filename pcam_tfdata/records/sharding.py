"""Arithmetic of splits and shards: which patch goes where. Pure, no I/O."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.system import name_arrays

_BLOCK_ROWS = 1 << 18


def count_shards(
    num_records: int, *, record_bytes: int, shard_bytes: int
) -> int:
    """Returns how many shards keep each at or under `shard_bytes`, at least 1.

    A shard holds at least one record, however small `shard_bytes` is.
    """
    records_per_shard = max(1, shard_bytes // record_bytes)
    return max(1, -(-num_records // records_per_shard))


def shard_bounds(num_records: int, num_shards: int) -> list[int]:
    """Returns num_shards + 1 row numbers: shard k is rows [k]:[k + 1].

    Shard sizes differ by one record at most.
    """
    return [k * num_records // num_shards for k in range(num_shards + 1)]


def shard_name(split: str, shard: int, num_shards: int) -> str:
    """Returns the file name of a shard, as TFDS expects it."""
    return f"pcam-{split}.tfrecord-{shard:05d}-of-{num_shards:05d}"


def is_shard_name(name: str) -> bool:
    """Returns whether `shard_name` gives such a name."""
    return re.fullmatch(r"pcam-.+\.tfrecord-\d{5,}-of-\d{5,}", name) is not None


def shuffle_names(
    names: np.ndarray, seed: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """Returns an order of names that follows from them and the seed alone.

    Args:
        names: bytes [num_names].
        seed: Another one gives another order.
        rows: Of the names to order, unique ones; None for all.

    Returns:
        int64 [num_rows], places in `rows`.
    """
    rows = np.arange(len(names)) if rows is None else rows
    prefix = hashlib.sha1(f"{seed}:".encode(), usedforsecurity=False)
    keys = np.empty(len(rows), "S20")
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = names[rows[start : start + _BLOCK_ROWS]].tolist()
        keys[start : start + _BLOCK_ROWS] = [
            _hash(prefix, name) for name in block
        ]
    return name_arrays.argsort(keys)


def group_patches(
    ids: Sequence[str], slides: Sequence[str] | None
) -> np.ndarray:
    """Returns for each patch the name of the group that must share a fold.

    A group is a slide where slides are known, else an id. Slides that hold the
    same pixels (equal ids) are one group, named by the first of them in order
    of name.

    Args:
        ids: Of the patches; see `name_columns.to_array`.
        slides: Likewise, or None.

    Returns:
        bytes [num_patches].
    """
    ids = name_arrays.to_array(ids)
    if slides is None:
        return ids
    names, slide = np.unique(name_arrays.to_array(slides), return_inverse=True)
    parent = list(range(len(names)))

    def root(slide: int) -> int:
        while parent[slide] != slide:
            parent[slide] = parent[parent[slide]]
            slide = parent[slide]
        return slide

    order = name_arrays.argsort(ids)
    same_id = ids[order[1:]] == ids[order[:-1]]
    before, after = slide[order[:-1]][same_id], slide[order[1:]][same_id]
    for pair in np.unique(np.stack([before, after], 1), axis=0).tolist():
        low, high = sorted(map(root, pair))
        parent[high] = low
    roots = np.array([root(place) for place in range(len(names))], np.int64)
    return names[roots[slide]]


def assign_folds(
    groups: Sequence[str],
    labels: Sequence[int],
    *,
    num_folds: int,
    seed: int,
) -> np.ndarray:
    """Returns the fold of each patch: grouped, balanced by label.

    Depends on the contents alone, never on the order of the arguments.

    Args:
        groups: Of the patches; those of one share a fold.
        labels: 0 or 1 for each patch.
        num_folds: How many folds.
        seed: Another seed gives other folds.

    Returns:
        int64 [num_patches], in [0, num_folds).

    Raises:
        ValueError: there are fewer groups than folds.
    """
    groups = name_arrays.to_array(groups)
    first_rows, group = _find_groups(groups)
    num_groups = len(first_rows)
    if num_groups < num_folds:
        raise ValueError(
            f"found {num_groups} groups of patches that must stay together,"
            f" expected at least --num_folds={num_folds}. Ask for fewer folds."
        )
    labels = np.asarray(labels, np.int64)
    counts = np.bincount(2 * group + labels, minlength=2 * num_groups)
    counts = counts.reshape(-1, 2)
    order = shuffle_names(groups, seed, first_rows)
    is_single = counts[order].sum(1) == 1
    fold_of_group = np.empty(num_groups, np.int64)
    _fill(fold_of_group, order[~is_single], counts, num_folds)
    _deal(fold_of_group, order[is_single], counts, num_folds)
    return fold_of_group[group]


def _hash(prefix: "hashlib._Hash", name: bytes) -> bytes:
    digest = prefix.copy()
    digest.update(name)
    return digest.digest()


def _find_groups(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a row of each group, in order of name, and the group of each row."""
    order = name_arrays.argsort(groups)
    is_first = np.ones(len(order), bool)
    for start in range(1, len(order), _BLOCK_ROWS):  # A copy would be 400 MB.
        block = groups[order[start - 1 : start + _BLOCK_ROWS]]
        is_new = name_arrays.mark_first(block)
        is_first[start : start + _BLOCK_ROWS] = is_new[1:]
    group = np.empty(len(groups), np.int64)
    group[order] = np.cumsum(is_first) - 1
    return order[is_first], group


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
