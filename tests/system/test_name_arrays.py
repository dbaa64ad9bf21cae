"""Columns of names."""

import numpy as np
import pytest

from pcam_tfdata.system import name_arrays

HASH = "0123456789abcdef" * 2 + "01234567"


def draw_names(num_names: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [
        "".join(draw.choice(list("ab\xe9"), draw.integers(1, 5)))
        for _ in range(num_names)
    ]


@pytest.mark.parametrize("num_names", [0, 1, 2, 200])
def test_names_are_found_where_they_come_first(num_names):
    names, known = draw_names(num_names, 0), draw_names(60, 1)
    arrays = [name_arrays.to_array(column) for column in (names, known)]
    first = name_arrays.find_first(arrays[0])
    assert first.tolist() == [names.index(name) for name in names]
    index = name_arrays.find(*arrays)
    assert index.tolist() == [
        known.index(name) if name in known else -1 for name in names
    ]
    assert (name_arrays.find(arrays[0], arrays[1][:0]) == -1).all()


def test_ids_are_compared_without_suffix_and_hashes_without_capitals():
    names = ["A.TIF", HASH.upper(), f"{HASH.upper()}.tif.png", f"{HASH}F", "b."]
    found = name_arrays.normalize(name_arrays.to_array(names))
    assert name_arrays.to_text(found) == ["A", HASH, HASH, f"{HASH}F", "b."]
    assert name_arrays.are_hashes(found).tolist() == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert not name_arrays.are_hashes(name_arrays.to_array(["a"])).any()


def test_shuffled_order_follows_from_names_and_seed_alone():
    names = np.array([f"n{number}" for number in range(100)], np.bytes_)
    shuffled = names[name_arrays.shuffle(names, 0)]
    backwards = names[::-1]
    again = backwards[name_arrays.shuffle(backwards, 0)]
    np.testing.assert_array_equal(shuffled, again)
    assert sorted(shuffled) == sorted(names) != shuffled.tolist()
    assert (names[name_arrays.shuffle(names, 1)] != shuffled).any()
