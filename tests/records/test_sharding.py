"""Arithmetic of shards."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from pcam_tfdata.records import sharding

ANY_CASE = hypothesis.settings(
    max_examples=300, deadline=None, derandomize=True
)


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


@ANY_CASE
@hypothesis.given(
    num_records=st.integers(0, 50) | st.integers(0, 10**12),
    record_bytes=st.integers(1, 30_000),
    shard_bytes=st.integers(0, 10**10),
)
def test_shards_of_any_size_hold_all_and_are_as_few_as_can_be(
    num_records, record_bytes, shard_bytes
):
    num_shards = sharding.count_shards(
        num_records, record_bytes=record_bytes, shard_bytes=shard_bytes
    )
    largest = -(-num_records // num_shards)
    assert largest <= max(1, shard_bytes // record_bytes)
    if num_shards > 1:
        larger = -(-num_records // (num_shards - 1))
        assert larger > max(1, shard_bytes // record_bytes)
    hypothesis.assume(num_shards < 10_000)
    bounds = sharding.shard_bounds(num_records, num_shards)
    sizes = [end - start for start, end in itertools.pairwise(bounds)]
    assert (bounds[0], sum(sizes), len(sizes)) == (0, num_records, num_shards)
    assert max(sizes) == largest
    assert max(sizes) - min(sizes) <= 1
