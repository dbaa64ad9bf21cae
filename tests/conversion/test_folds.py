"""Which fold a patch goes to."""

import collections

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pcam_tfdata.conversion import folds

ANY_CASE = hypothesis.settings(
    max_examples=300, deadline=None, derandomize=True
)


def assign(groups, labels, **options):
    return folds.assign_folds(
        np.array(groups, np.bytes_),
        np.array(labels),
        **{"num_folds": 5, "seed": 0} | options,
    )


def group(ids, slides):
    if slides is not None:
        slides = np.array(slides, np.bytes_)
    return folds.group_patches(np.array(ids, np.bytes_), slides)


def test_folds_without_slides_are_balanced():
    labels = np.random.default_rng(0).random(1003) < 0.4
    dealt = assign([f"p{n}" for n in range(1003)], labels.astype(int))
    assert np.ptp(np.bincount(dealt)) <= 1
    assert np.ptp(np.bincount(dealt[labels])) <= 1


def test_slides_stay_together_and_folds_are_balanced():
    rng = np.random.default_rng(1)
    slides = rng.integers(0, 200, 20_000)
    labels = (rng.random(20_000) < rng.random(200)[slides]).astype(int)
    dealt = assign([f"s{n}" for n in slides], labels)
    folds_of_slide = collections.defaultdict(set)
    for slide, fold in zip(slides, dealt, strict=True):
        folds_of_slide[slide].add(fold)
    assert all(len(found) == 1 for found in folds_of_slide.values())
    for label in (0, 1):
        share = np.bincount(dealt[labels == label]) / np.sum(labels == label)
        assert np.abs(share - 0.2).max() < 0.01


def test_folds_depend_on_content_and_seed_alone():
    groups = [f"s{n // 3}" for n in range(300)]
    labels = [n % 2 for n in range(300)]
    dealt = assign(groups, labels)
    backwards = assign(groups[::-1], labels[::-1])
    np.testing.assert_array_equal(dealt, backwards[::-1])
    assert (dealt != assign(groups, labels, seed=1)).any()


def test_slides_of_one_label_leave_no_fold_empty():
    groups = ["a", "a", "b", "b", "c", "c"]
    dealt = assign(groups, [1, 1, 0, 0, 0, 0], num_folds=3)
    assert set(dealt) == {0, 1, 2}


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(ValueError, match=r"found 2 groups.*num_folds=5"):
        assign(["a", "b", "a"], [0, 1, 1])


def test_slides_with_equal_pixels_are_one_group():
    ids = ["x", "y", "x", "z", "y", "w"]
    slides = ["s3", "s1", "s2", "s4", "s2", "s5"]
    groups = group(ids, slides)
    assert groups.tolist() == [b"s1", b"s1", b"s1", b"s4", b"s1", b"s5"]


def test_without_slides_equal_pixels_are_one_group():
    groups = group(["x", "y", "x"], None)
    assert groups.tolist() == [b"x", b"y", b"x"]


def test_no_fold_stays_empty_beside_large_groups():
    dealt = assign(["a", "a", "b"], [0, 1, 1], num_folds=2)
    assert set(dealt) == {0, 1}


@st.composite
def grouped_patches(draw: st.DrawFn) -> tuple[list[str], list[int], int]:
    """Groups and labels of patches, and how many folds to deal them into."""
    num_folds = draw(st.integers(1, 6))
    sizes = draw(
        st.lists(st.integers(1, 9), min_size=num_folds, max_size=num_folds + 12)
    )
    groups = [
        f"g{group}" for group, size in enumerate(sizes) for _ in range(size)
    ]
    label = st.integers(0, 1)
    labels = draw(st.lists(label, min_size=len(groups), max_size=len(groups)))
    return groups, labels, num_folds


@ANY_CASE
@hypothesis.given(grouped_patches(), st.integers(0, 5), st.randoms())
def test_any_groups_are_dealt_whole_once_and_in_no_order(case, seed, random):
    groups, labels, num_folds = case
    options = {"num_folds": num_folds, "seed": seed}
    dealt = assign(groups, labels, **options)
    assert dealt.dtype == np.int64
    assert len(dealt) == len(groups)
    assert set(dealt.tolist()) <= set(range(num_folds))
    assert len(set(zip(groups, dealt.tolist(), strict=True))) == len(
        set(groups)
    )
    order = list(range(len(groups)))
    random.shuffle(order)
    shuffled = assign(
        [groups[place] for place in order],
        [labels[place] for place in order],
        **options,
    )
    np.testing.assert_array_equal(shuffled, dealt[order])


@ANY_CASE
@hypothesis.given(grouped_patches())
def test_folds_of_groups_of_one_label_differ_by_one_group_at_most(case):
    groups, labels, num_folds = case
    sizes = collections.Counter(groups)
    groups = [group for group in groups if sizes[group] > 1]
    hypothesis.assume(len(set(groups)) >= num_folds)
    dealt = assign(groups, [labels[0]] * len(groups), num_folds=num_folds)
    counts = np.bincount(dealt, minlength=num_folds)
    assert counts.min() > 0
    assert np.ptp(counts) <= max(sizes.values())


@ANY_CASE
@hypothesis.given(st.data(), st.integers(1, 7))
def test_single_patches_of_any_labels_are_dealt_evenly(data, num_folds):
    labels = np.array(
        data.draw(st.lists(st.integers(0, 1), min_size=num_folds, max_size=80))
    )
    names = [f"p{place}" for place in range(len(labels))]
    dealt = assign(names, labels, num_folds=num_folds)
    for chosen in (dealt, dealt[labels == 0], dealt[labels == 1]):
        assert np.ptp(np.bincount(chosen, minlength=num_folds)) <= 1


def group_slowly(ids: list[str], slides: list[str]) -> list[str]:
    """Returns the least slide that each patch is tied to, however far."""
    group = list(slides)
    while True:
        least = {}
        for key, name in zip([*ids, *slides], [*group, *group], strict=True):
            least[key] = min(name, least.get(key, name))
        joined = [
            min(least[patch_id], least[slide])
            for patch_id, slide in zip(ids, slides, strict=True)
        ]
        if joined == group:
            return group
        group = joined


@ANY_CASE
@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 12)), max_size=30)
)
def test_any_patches_are_grouped_like_by_the_slow_twin(pairs):
    ids = [f"id{number}" for number, _ in pairs]
    slides = [f"slide{number:02}" for _, number in pairs]
    found = group(ids, slides)
    assert [name.decode() for name in found] == group_slowly(ids, slides)
    found = group(ids, None)
    assert [name.decode() for name in found] == ids
