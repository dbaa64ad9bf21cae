"""The search finds what comparing all with all finds."""

import numpy as np
import pandas
import pytest

from pcam_tfdata.audit import similarity_search
from pcam_tfdata.system import progress

SIZE = 64
CROWD = 3_000


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths).astype(np.float32)


def make_vectors(num_vectors: int, similarity: float, num_pairs: int):
    """Random vectors; the last ones are like the first ones."""
    rng = np.random.default_rng(3)
    vectors = unit(rng.standard_normal((num_vectors, SIZE)))
    others = unit(rng.standard_normal((num_pairs, SIZE)))
    share = np.sqrt(1 - similarity**2)
    vectors[-num_pairs:] = similarity * vectors[:num_pairs] + share * others
    return unit(vectors)


def brute_force(vectors: np.ndarray, least_similarity: float) -> set:
    products = vectors @ vectors.T
    first, second = np.nonzero(np.triu(products >= least_similarity, 1))
    return set(zip(first.tolist(), second.tolist(), strict=True))


def as_set(pairs: pandas.DataFrame) -> set:
    found = list(zip(pairs["first"], pairs["second"], strict=True))
    assert len(found) == len(set(found))
    return set(found)


def test_finds_the_pairs_that_brute_force_finds():
    vectors = make_vectors(4000, similarity=0.9, num_pairs=400)
    found, _ = similarity_search.find_pairs(
        vectors, least_similarity=0.7, num_threads=2
    )
    expected = brute_force(vectors, 0.7)
    assert len(expected) >= 400
    assert as_set(found) <= expected
    assert len(as_set(found)) > 0.99 * len(expected)


def test_similarity_is_the_product():
    vectors = make_vectors(500, similarity=0.8, num_pairs=50)
    found, _ = similarity_search.find_pairs(vectors, least_similarity=0.6)
    products = (vectors[found["first"]] * vectors[found["second"]]).sum(axis=1)
    np.testing.assert_allclose(found["similarity"], products, atol=1e-5)
    assert (found["first"] < found["second"]).all()


def test_threads_change_nothing():
    vectors = make_vectors(2000, similarity=0.75, num_pairs=300)
    one, two = (
        similarity_search.find_pairs(
            vectors, least_similarity=0.6, num_threads=n
        )
        for n in (1, 2)
    )
    pandas.testing.assert_frame_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


def test_search_says_how_far_it_is(monkeypatch, caplog):
    for wait in ("mininterval", "delay"):
        monkeypatch.setitem(progress._LINES, wait, 1e-9)
    vectors = make_vectors(640, similarity=0.8, num_pairs=50)
    with caplog.at_level("INFO", "pcam_tfdata"):
        similarity_search.find_pairs(vectors, least_similarity=0.6)
    first, *_, last = caplog.messages
    assert first.startswith("search: 8 of 640 patches")
    assert last.startswith("search: 640 of 640 patches")


@pytest.mark.parametrize("num_vectors", [0, 1, 2, 9])
def test_few_vectors(num_vectors):
    vectors = unit(np.ones((num_vectors, SIZE)))
    found, _ = similarity_search.find_pairs(vectors, least_similarity=0.6)
    assert as_set(found) == brute_force(vectors, 0.6)


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of so many equal vectors, and how many of each are left out."""
    vectors = unit(np.ones((CROWD, SIZE)))
    return similarity_search.find_pairs(vectors, least_similarity=0.9)


def test_crowd_of_equal_vectors_costs_neither_time_nor_memory(crowd):
    found, _ = crowd
    # All pairs are 4.5 million; each vector is in one pair at least.
    assert len(found) <= 8 * CROWD
    assert len(np.union1d(found["first"], found["second"])) == CROWD


def test_crowd_of_equal_vectors_is_told_of_all_but_the_last(crowd):
    _, left_out = crowd
    assert (left_out[:-20] > 0).all()


@pytest.mark.parametrize(("crowd", "is_told"), [(9, False), (10, True)])
def test_search_tells_of_pairs_that_it_leaves_out(crowd, is_told):
    rng = np.random.default_rng(5)
    vectors = np.repeat(unit(rng.standard_normal((40, SIZE))), crowd, axis=0)
    vectors = unit(vectors + 0.02 * rng.standard_normal(vectors.shape))
    found, left_out = similarity_search.find_pairs(
        vectors, least_similarity=0.9
    )
    expected = [first for first, _ in brute_force(vectors, 0.9)]
    expected = np.bincount(expected, minlength=len(vectors))
    kept = np.bincount(found["first"], minlength=len(vectors))
    # At the least: never more than there are.
    assert (kept + left_out <= expected).all()
    assert left_out.any() == is_told == (expected > kept).any()
