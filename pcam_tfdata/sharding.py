"""Arithmetic of splits and shards: which patch goes where. Pure, no I/O."""

import collections
import hashlib
from collections.abc import Sequence

import numpy as np


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


def group_patches(
    ids: Sequence[str], slides: Sequence[str] | None
) -> list[str]:
    """Returns for each patch the name of the group that must share a fold.

    A group is a slide where slides are known, else an id. Slides that hold the
    same pixels (equal ids) are one group, named by the first of them in order
    of name.
    """
    if slides is None:
        return list(ids)
    parent = {slide: slide for slide in slides}

    def root(slide: str) -> str:
        while parent[slide] != slide:
            slide = parent[slide]
        return slide

    slide_of_id: dict[str, str] = {}
    for patch_id, slide in zip(ids, slides, strict=True):
        pair = root(slide_of_id.setdefault(patch_id, slide)), root(slide)
        parent[max(pair)] = min(pair)
    return [root(slide) for slide in slides]


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
        groups: Patches of one group share a fold.
        labels: 0 or 1 for each patch.
        num_folds: How many folds.
        seed: Another seed gives other folds.

    Returns:
        int64 [num_patches], in [0, num_folds).

    Raises:
        ValueError: there are fewer groups than folds.
    """
    counts: dict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
    for group, label in zip(groups, labels, strict=True):
        counts[group][label] += 1
    if len(counts) < num_folds:
        raise ValueError(
            f"found {len(counts)} groups of patches that must stay together,"
            f" expected at least --num_folds={num_folds}. Ask for fewer folds."
        )
    order = sorted(counts, key=lambda group: _shuffle_key(seed, group))
    large = [group for group in order if sum(counts[group]) > 1]
    single = [group for group in order if sum(counts[group]) == 1]
    fold_of_group = _fill(large, counts, num_folds) | _deal(
        single, counts, num_folds
    )
    return np.array([fold_of_group[group] for group in groups], np.int64)


def _shuffle_key(seed: int, group: str) -> bytes:
    return hashlib.sha1(
        f"{seed}:{group}".encode(), usedforsecurity=False
    ).digest()


def _fill(
    order: list[str], counts: dict[str, list[int]], num_folds: int
) -> dict[str, int]:
    """Gives each group to the fold where it adds least to the imbalance.

    Greedy descent on the sum over folds and labels of (share of the label)^2,
    the largest groups first.
    """
    order = sorted(order, key=lambda group: -sum(counts[group]))
    totals = np.maximum(np.sum(list(counts.values()), axis=0), 1)
    filled = np.zeros((num_folds, 2))
    fold_of_group = {}
    for group in order:
        share = np.asarray(counts[group]) / totals
        overlap, size = filled @ share, filled.sum(1)
        # Of equals the emptiest, so that no fold stays empty.
        fold = int(np.lexsort((size, overlap))[0])
        filled[fold] += share
        fold_of_group[group] = fold
    return fold_of_group


def _deal(
    order: list[str], counts: dict[str, list[int]], num_folds: int
) -> dict[str, int]:
    """Deals single patches like cards, one label after the other."""
    dealt = sorted(order, key=lambda group: counts[group][1])
    return {group: place % num_folds for place, group in enumerate(dealt)}
