"""Pairs of vectors that point the same way, without comparing all with all.

Each vector is hashed to 256 bits, the sides of random planes on which it lies:
two at an angle differ in a share of bits of angle / 180 degrees (Charikar 2002).
Patches are sorted by a few bits at a time, 128 times by different ones; only
neighbours with those bits in common are compared, first by all bits, then as
vectors. In a crowd of equal bits each is compared with the next 256 at the most,
so the work grows as n log n, whatever the vectors are.
"""

import concurrent.futures
import functools
import math
from typing import NamedTuple

import numpy as np

from pcam_tfdata.system import progress

NUM_BITS = 256
_NUM_SORTS = 128
_MAX_NEIGHBORS = 256
_SEED = 20181
# Later partners of a vector, the most similar ones: a bound on memory where
# thousands look the same.
_MAX_PAIRS = 8
_ROWS = 16384  # Compared at a time.
# A vector shares its bits with about 2^4 unrelated ones.
_LOG_CROWD = 4
_SPARE_BITS = 8  # Bits may differ by more than the angle says.


class Pairs(NamedTuple):
    """Pairs of similar vectors, each once, in order.

    Attributes:
        first: int64 [num_pairs], index of a vector.
        second: int64 [num_pairs], index of a later one.
        similarity: float32 [num_pairs], the product of both.
        num_left_out: int64 [num_vectors], further later vectors that each is
            known to be like: where thousands look the same there are more.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    num_left_out: np.ndarray


_Columns = tuple[np.ndarray, ...]  # The first three of `Pairs`.


def find_pairs(
    embeddings: np.ndarray, *, least_similarity: float, num_threads: int = 1
) -> Pairs:
    """Returns the pairs of vectors whose product is large, or nearly all.

    What is missed depends on the product: BUILD_NOTES.md, Audit.

    Args:
        embeddings: float16 or float32 [n, size], of length 1.
        least_similarity: Pairs below are left out.
        num_threads: The work is numpy's, which lets threads run side by side.
    """
    bits = hash_bits(embeddings)
    words = np.packbits(bits, axis=0).T.copy().view(np.uint64)  # [n, 4]
    packed = np.ascontiguousarray(words.T)
    search = functools.partial(
        _find_in_sort, embeddings, packed, bits, least_similarity
    )
    num_vectors = len(embeddings)
    pairs = _merge([], np.zeros(num_vectors, np.int64))
    with (
        concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
        progress.Progress(num_vectors, "search") as bar,
    ):
        parts = pool.map(search, choose_bits(num_vectors))
        for number, part in enumerate(parts, 1):
            # What two sorts leave out may be the same: the larger is sure.
            left_out = np.maximum(pairs.num_left_out, part.num_left_out)
            pairs = _merge([pairs[:3], part[:3]], left_out)
            # Each sort is a share of the work on every vector.
            bar.advance_to(num_vectors * number // _NUM_SORTS)
    return pairs


def hash_bits(embeddings: np.ndarray) -> np.ndarray:
    """Returns on which side of random planes vectors lie: bool [256, n]."""
    rng = np.random.default_rng(_SEED)
    planes = rng.standard_normal((NUM_BITS, embeddings.shape[1]), np.float32)
    bits = np.empty((NUM_BITS, len(embeddings)), bool)
    block = 8192
    for start in range(0, len(embeddings), block):
        part = embeddings[start : start + block].astype(np.float32)
        bits[:, start : start + block] = planes @ part.T > 0
    return bits


def choose_bits(num_vectors: int) -> np.ndarray:
    """Returns the bits of each sort: int64 [128, bits a sort]."""
    num_bits = max(1, round(math.log2(max(num_vectors, 2))) - _LOG_CROWD)
    rng = np.random.default_rng(_SEED + 1)
    draws = (rng.choice(NUM_BITS, num_bits, False) for _ in range(_NUM_SORTS))
    return np.stack(list(draws))


def most_bits(similarity: float) -> int:
    """Returns in how many of 256 bits similar vectors may differ."""
    return round(NUM_BITS * math.acos(similarity) / math.pi) + _SPARE_BITS


def _find_in_sort(
    embeddings: np.ndarray,
    packed: np.ndarray,
    bits: np.ndarray,
    least_similarity: float,
    chosen: np.ndarray,
) -> Pairs:
    codes = np.zeros(len(embeddings), np.int64)
    for shift, bit in enumerate(chosen):
        codes |= bits[bit].astype(np.int64) << shift
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    most = most_bits(least_similarity)
    parts: list[_Columns] = []
    num_pairs = 0
    starts = np.arange(len(order))
    for offset in range(1, _MAX_NEIGHBORS + 1):
        starts = starts[starts < len(order) - offset]
        starts = starts[codes[starts] == codes[starts + offset]]
        if not len(starts):
            break
        first, second = order[starts], order[starts + offset]
        close = np.flatnonzero(_count_differing(packed, first, second) <= most)
        for start in range(0, len(close), _ROWS):
            rows = close[start : start + _ROWS]
            part = _compare(
                embeddings, first[rows], second[rows], least_similarity
            )
            parts.append(part)
            num_pairs += len(part[0])
        # Then a vector at least has more pairs than are kept, and is told.
        if num_pairs > _MAX_PAIRS * len(embeddings):
            break
    return _merge(parts, np.zeros(len(embeddings), np.int64))


def _count_differing(
    packed: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    # Word by word: rows of four words took twice as long.
    counts = np.zeros(len(first), np.uint16)
    for word in packed:
        counts += np.bitwise_count(word[first] ^ word[second])
    return counts


def _compare(
    embeddings: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    least_similarity: float,
) -> _Columns:
    similarity = np.einsum(
        "ij,ij->i",
        embeddings[first].astype(np.float32),
        embeddings[second].astype(np.float32),
    )
    kept = similarity >= least_similarity
    first, second = first[kept], second[kept]
    return (
        np.minimum(first, second),
        np.maximum(first, second),
        similarity[kept],
    )


def _merge(parts: list[_Columns], num_left_out: np.ndarray) -> Pairs:
    """Returns the pairs of all parts, each once; the best where too many.

    Args:
        parts: Some of which may have the same pairs.
        num_left_out: int64 [num_vectors], what is known to be left out of them.
    """
    num_vectors = len(num_left_out)
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, "f4")
    first, second, similarity = map(
        np.concatenate, zip(nothing, *parts, strict=True)
    )
    _, fresh = np.unique(first * num_vectors + second, return_index=True)
    first, second, similarity = first[fresh], second[fresh], similarity[fresh]
    order = np.lexsort((-similarity, first))
    ranks = np.arange(len(order)) - np.searchsorted(first, first[order])
    kept = np.sort(order[ranks < _MAX_PAIRS])
    num_pairs = np.bincount(first, minlength=num_vectors)
    return Pairs(
        first[kept],
        second[kept],
        similarity[kept],
        num_left_out=np.maximum(num_pairs - _MAX_PAIRS, num_left_out),
    )
