"""Pairs of vectors that point the same way, without comparing all with all.

Vectors are sorted 80 times by the sides of random planes on which they lie: two
at an angle are on the same side of a plane with probability 1 - angle / 180
degrees (Charikar 2002). Each sort is cut into windows of 128, and in a window all
are compared with all, so the work grows as n log n, whatever the vectors are.
"""

import concurrent.futures
import functools
import math

import numpy as np
import pandas
import threadpoolctl

from pcam_tfdata.system import progress

_NUM_SORTS = 80
_WINDOW = 128
# Unrelated vectors that are on the same sides of all planes: about 2^6.
_LOG_CROWD = 6
_BLOCK = 64 * _WINDOW  # Vectors that are compared at a time.
# Later partners of a vector, the most similar ones: a bound on memory where
# thousands look the same.
_MAX_PAIRS = 8
_SEED = 20181


@threadpoolctl.threadpool_limits.wrap(limits=1)  # The threads are ours.
def find_pairs(
    embeddings: np.ndarray, *, least_similarity: float, num_threads: int = 1
) -> tuple[pandas.DataFrame, np.ndarray]:
    """Returns the pairs of vectors whose product is large, or nearly all.

    What is missed depends on the product: BUILD_NOTES.md, Audit.

    Args:
        embeddings: float16 or float32 [n, size], of length 1.
        least_similarity: Pairs below are left out.
        num_threads: The work is numpy's, which lets threads run side by side.

    Returns:
        The pairs, each once, in order: the number `first` of a vector, the
        number `second` of a later one, and their product `similarity`. And
        int64 [n], how many further later vectors each is known to be like:
        where thousands look the same there are more.
    """
    num_vectors = len(embeddings)
    search = functools.partial(_find_in_sort, embeddings, least_similarity)
    pairs = pandas.DataFrame(columns=["first", "second", "similarity"])
    num_left_out = np.zeros(num_vectors, np.int64)
    with (
        concurrent.futures.ThreadPoolExecutor(num_threads) as pool,
        progress.Progress(num_vectors, "search") as bar,
    ):
        parts = pool.map(search, range(_NUM_SORTS))
        for number, part in enumerate(parts, 1):
            pairs = pandas.concat([pairs, part] if len(pairs) else [part])
            pairs = pairs.drop_duplicates(["first", "second"])
            counts = np.bincount(pairs["first"], minlength=num_vectors)
            # What two sorts leave out may be the same: the larger is sure.
            num_left_out = np.maximum(num_left_out, counts - _MAX_PAIRS)
            pairs = pairs.sort_values("similarity", ascending=False)
            pairs = pairs.groupby("first").head(_MAX_PAIRS)
            # Each sort is a share of the work on every vector.
            bar.advance_to(num_vectors * number // _NUM_SORTS)
    pairs = pairs.sort_values(["first", "second"], ignore_index=True)
    return pairs, num_left_out


def _find_in_sort(
    embeddings: np.ndarray, least_similarity: float, sort: int
) -> pandas.DataFrame:
    """Returns the pairs of vectors that a sort, by its number, brings together."""
    windows = _sort(embeddings, np.random.default_rng([_SEED, sort]))
    parts = []
    for start in range(0, max(len(windows), 1), _BLOCK // _WINDOW):
        block = windows[start : start + _BLOCK // _WINDOW]
        vectors = embeddings[block].astype(np.float32)
        products = vectors @ vectors.transpose(0, 2, 1)
        is_later = block[:, :, None] < block[:, None, :]
        found = np.nonzero((products >= least_similarity) & is_later)
        window, first, second = found
        pairs = block[window, first], block[window, second], products[found]
        parts.append(pairs)
    first, second, similarity = map(np.concatenate, zip(*parts, strict=True))
    return pandas.DataFrame(
        {"first": first, "second": second, "similarity": similarity}
    )


def _sort(embeddings: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the numbers of vectors, windows of neighbours: int64 [-1, 128]."""
    num_vectors, size = embeddings.shape
    num_planes = max(0, round(math.log2(max(num_vectors, 1))) - _LOG_CROWD)
    planes = rng.standard_normal((size, num_planes), np.float32)
    bits = 1 << np.arange(num_planes)
    sides = np.zeros(num_vectors, np.int64)
    for start in range(0, num_vectors, _BLOCK):
        block = slice(start, start + _BLOCK)
        sides[block] = (embeddings[block] @ planes > 0) @ bits
    # Those on the same sides of all planes are shuffled, to meet others in the
    # next sort; what the last window lacks are the first ones again.
    order = np.lexsort((rng.permutation(num_vectors), sides))
    num_windows = -(-num_vectors // _WINDOW)
    return np.resize(order, (num_windows, _WINDOW))
