"""Arithmetic of splits and shards: which patch goes where. Pure, no I/O."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

_WORD_BYTES = 8
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


def to_names(values: Sequence[str]) -> np.ndarray:
    """Returns names as bytes [num_names], UTF-8; such an array as it is."""
    found = np.asarray(values)
    if not len(found):
        return found.astype("S1")
    return found if found.dtype.kind == "S" else np.strings.encode(found)


def argsort_names(*columns: np.ndarray) -> np.ndarray:
    """Returns the order of rows of names; the first column counts most.

    Eight bytes are compared at a time, as one number, and the next eight only
    of rows that are equal so far: for ten million hashes that takes a tenth of
    the time and memory of comparing names. Equal rows keep their order.

    Args:
        columns: bytes [num_rows] each.
    """
    order = np.arange(len(columns[0]))
    group = np.zeros(len(order), np.int64)  # Where equal rows begin.
    tied = np.arange(len(order))  # Places of rows that others are equal to.
    for word in _iterate_words(columns):
        value = word(order[tied])
        within = np.lexsort((value, group[tied]))
        order[tied] = order[tied][within]
        is_new = np.ones(len(tied), bool)
        value, of_group = value[within], group[tied][within]
        is_new[1:] = (value[1:] != value[:-1]) | (of_group[1:] != of_group[:-1])
        group[tied] = tied[np.maximum.accumulate(_places(is_new))]
        is_tied = ~is_new
        is_tied[:-1] |= ~is_new[1:]
        tied = tied[is_tied]
    return order


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
    return argsort_names(keys)


def group_patches(
    ids: Sequence[str], slides: Sequence[str] | None
) -> np.ndarray:
    """Returns for each patch the name of the group that must share a fold.

    A group is a slide where slides are known, else an id. Slides that hold the
    same pixels (equal ids) are one group, named by the first of them in order
    of name.

    Args:
        ids: Of the patches; see `to_names`.
        slides: Likewise, or None.

    Returns:
        bytes [num_patches].
    """
    ids = to_names(ids)
    if slides is None:
        return ids
    names, slide = np.unique(to_names(slides), return_inverse=True)
    parent = list(range(len(names)))

    def root(slide: int) -> int:
        while parent[slide] != slide:
            parent[slide] = parent[parent[slide]]
            slide = parent[slide]
        return slide

    order = argsort_names(ids)
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
        groups: Of the patches, see `to_names`; those of one share a fold.
        labels: 0 or 1 for each patch.
        num_folds: How many folds.
        seed: Another seed gives other folds.

    Returns:
        int64 [num_patches], in [0, num_folds).

    Raises:
        ValueError: there are fewer groups than folds.
    """
    groups = to_names(groups)
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


def _iterate_words(
    columns: Sequence[np.ndarray],
) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Yields functions from rows to eight bytes of their names, as uint64."""
    for column in columns:
        width = column.dtype.itemsize
        letters = np.ascontiguousarray(column).view(np.uint8)
        letters = letters.reshape(len(column), width)
        for start in range(0, width, _WORD_BYTES):
            yield functools.partial(
                _read_word, letters[:, start : start + _WORD_BYTES]
            )


def _read_word(letters: np.ndarray, rows: np.ndarray) -> np.ndarray:
    words = np.zeros((len(rows), _WORD_BYTES), np.uint8)
    words[:, : letters.shape[1]] = letters[rows]
    return words.view(">u8").ravel().astype(np.uint64)


def _hash(prefix: "hashlib._Hash", name: bytes) -> bytes:
    digest = prefix.copy()
    digest.update(name)
    return digest.digest()


def _places(is_new: np.ndarray) -> np.ndarray:
    """Returns each place where something is new, and 0 elsewhere."""
    return np.where(is_new, np.arange(len(is_new)), 0)


def _find_groups(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a row of each group, in order of name, and the group of each row."""
    order = argsort_names(groups)
    is_first = np.ones(len(order), bool)
    for start in range(1, len(order), _BLOCK_ROWS):
        block = groups[order[start - 1 : start + _BLOCK_ROWS]]
        is_first[start : start + _BLOCK_ROWS] = block[1:] != block[:-1]
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
