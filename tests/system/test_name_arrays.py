"""Columns of names."""

import numpy as np

from pcam_tfdata.system import name_arrays


def test_names_sort_as_bytes_do_and_equal_ones_stay():
    draw = np.random.default_rng(0)
    for num_rows in (0, 1, 2, 40):
        columns = [
            name_arrays.to_array(
                [
                    "".join(draw.choice(list("ab\xe9"), draw.integers(0, size)))
                    for _ in range(num_rows)
                ]
            )
            for size in (20, 3)
        ]
        found = name_arrays.argsort(*columns)
        expected = sorted(
            range(num_rows), key=lambda row: tuple(c[row] for c in columns)
        )
        assert found.tolist() == expected


def test_shuffled_order_follows_from_names_and_seed_alone():
    names = np.array([f"n{number}" for number in range(100)], np.bytes_)
    shuffled = names[name_arrays.shuffle(names, 0)]
    backwards = names[::-1]
    again = backwards[name_arrays.shuffle(backwards, 0)]
    np.testing.assert_array_equal(shuffled, again)
    assert sorted(shuffled) == sorted(names) != shuffled.tolist()
    assert (names[name_arrays.shuffle(names, 1)] != shuffled).any()
