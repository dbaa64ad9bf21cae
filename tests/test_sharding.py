"""Arithmetic of splits and shards."""

import collections

import numpy as np
import pytest

from pcam_tfdata import sharding


@pytest.mark.parametrize("num_records", [0, 1, 2, 7, 100, 999])
@pytest.mark.parametrize("num_shards", [1, 2, 3, 7, 100])
def test_bounds_lose_no_record(num_records, num_shards):
    bounds = sharding.shard_bounds(num_records, num_shards)
    sizes = np.diff(bounds)
    assert (bounds[0], bounds[-1]) == (0, num_records)
    assert sizes.min() >= 0
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize(
    ("num_records", "shard_bytes", "expected"),
    [(0, 100, 1), (1, 1, 1), (3, 1, 3), (10, 100, 1), (11, 100, 2),
     (21, 100, 3)],
)  # fmt: skip
def test_shards_stay_under_their_size(num_records, shard_bytes, expected):
    found = sharding.count_shards(
        num_records, record_bytes=10, shard_bytes=shard_bytes
    )
    assert found == expected


def assign(groups, labels, **options):
    return sharding.assign_folds(
        groups, labels, **{"num_folds": 5, "seed": 0} | options
    )


def test_folds_without_slides_are_balanced():
    labels = np.random.default_rng(0).random(1003) < 0.4
    folds = assign([f"p{n}" for n in range(1003)], labels.astype(int))
    assert np.ptp(np.bincount(folds)) <= 1
    assert np.ptp(np.bincount(folds[labels])) <= 1


def test_slides_stay_together_and_folds_are_balanced():
    rng = np.random.default_rng(1)
    slides = rng.integers(0, 200, 20_000)
    labels = (rng.random(20_000) < rng.random(200)[slides]).astype(int)
    folds = assign([f"s{n}" for n in slides], labels)
    folds_of_slide = collections.defaultdict(set)
    for slide, fold in zip(slides, folds, strict=True):
        folds_of_slide[slide].add(fold)
    assert all(len(found) == 1 for found in folds_of_slide.values())
    for label in (0, 1):
        share = np.bincount(folds[labels == label]) / np.sum(labels == label)
        assert np.abs(share - 0.2).max() < 0.01


def test_folds_depend_on_content_and_seed_alone():
    groups = [f"s{n // 3}" for n in range(300)]
    labels = [n % 2 for n in range(300)]
    folds = assign(groups, labels)
    backwards = assign(groups[::-1], labels[::-1])
    np.testing.assert_array_equal(folds, backwards[::-1])
    assert (folds != assign(groups, labels, seed=1)).any()


def test_slides_of_one_label_leave_no_fold_empty():
    groups = ["a", "a", "b", "b", "c", "c"]
    folds = assign(groups, [1, 1, 0, 0, 0, 0], num_folds=3)
    assert set(folds) == {0, 1, 2}


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(ValueError, match=r"found 2 groups.*num_folds=5"):
        assign(["a", "b", "a"], [0, 1, 1])


def test_slides_with_equal_pixels_are_one_group():
    ids = ["x", "y", "x", "z", "y", "w"]
    slides = ["s3", "s1", "s2", "s4", "s2", "s5"]
    groups = sharding.group_patches(ids, slides)
    assert groups.tolist() == [b"s1", b"s1", b"s1", b"s4", b"s1", b"s5"]


def test_without_slides_equal_pixels_are_one_group():
    groups = sharding.group_patches(["x", "y", "x"], None)
    assert groups.tolist() == [b"x", b"y", b"x"]


def test_names_sort_as_bytes_do_and_equal_ones_stay():
    draw = np.random.default_rng(0)
    for num_rows in (0, 1, 2, 40):
        columns = [
            sharding.to_names(
                [
                    "".join(draw.choice(list("ab\xe9"), draw.integers(0, size)))
                    for _ in range(num_rows)
                ]
            )
            for size in (20, 3)
        ]
        found = sharding.argsort_names(*columns)
        expected = sorted(
            range(num_rows), key=lambda row: tuple(c[row] for c in columns)
        )
        assert found.tolist() == expected


def test_no_fold_stays_empty_beside_large_groups():
    folds = assign(["a", "a", "b"], [0, 1, 1], num_folds=2)
    assert set(folds) == {0, 1}
