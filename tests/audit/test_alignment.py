"""Patches are laid on each other: which move, which shift, how well."""

import numpy as np
import pytest
from conftest import make_clouds

from pcam_tfdata.audit import alignment, patch_statistics


@pytest.fixture(scope="module")
def densities() -> np.ndarray:
    images = make_clouds(12)
    return patch_statistics.mean_of_channels(
        patch_statistics.optical_density(images)
    )


def shift(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """What comes in is of the next image."""
    moved = np.roll(images, 1, axis=0)
    rows = slice(max(0, down), min(0, down) or None)
    columns = slice(max(0, right), min(0, right) or None)
    rolled = np.roll(images, (down, right), axis=(1, 2))
    moved[:, rows, columns] = rolled[:, rows, columns]
    return moved


def shifts_of(found: np.ndarray) -> list[tuple[int, int]]:
    return found[["down", "right"]].tolist()


@pytest.mark.parametrize("move", range(alignment.NUM_MOVES))
def test_finds_the_move_that_lays_a_patch_back(densities, move):
    turned = alignment.turn(densities, move)
    found = alignment.align(densities, turned)
    assert found["score"].min() > 0.99
    assert shifts_of(found) == [(0, 0)] * len(densities)
    for place, back in enumerate(found["move"]):
        laid = alignment.turn(turned[place][None], back)[0]
        np.testing.assert_array_equal(laid, densities[place])


@pytest.mark.parametrize(
    ("down", "right"), [(0, 1), (-3, 5), (8, 8), (0, -16), (-18, 18)]
)
def test_finds_by_how_much_a_patch_was_moved(densities, down, right):
    found = alignment.align(shift(densities, down, right), densities)
    assert shifts_of(found) == [(down, right)] * len(densities)
    assert not found["move"].any()
    assert found["score"].min() > 0.9


def test_finds_a_patch_that_was_turned_and_moved(densities):
    moved = shift(alignment.turn(densities, 6), 4, -7)
    found = alignment.align(moved, densities)
    assert (found["move"] == 6).all()
    assert shifts_of(found) == [(4, -7)] * len(densities)


def test_unrelated_patches_score_low(densities):
    found = alignment.align(densities, np.roll(densities, 1, axis=0))
    assert found["score"].max() < 0.6


def test_shading_in_common_is_no_match():
    ramp = np.linspace(0, 1, 96, dtype=np.float32) * np.ones((96, 1))
    rng = np.random.default_rng(0)
    first, second = (
        (ramp + 0.02 * rng.standard_normal((1, 96, 96))).astype(np.float32)
        for _ in range(2)
    )
    assert alignment.align(first, second)["score"][0] < 0.5


def test_flat_patches_score_0():
    flat = np.ones((2, 96, 96), np.float32)
    assert alignment.align(flat, flat)["score"].tolist() == [0, 0]


def test_correlation_is_that_of_the_shared_pixels():
    first, second = np.random.default_rng(1).random((2, 9, 9))
    found = alignment.correlate(first, second, 2, -3)
    expected = np.corrcoef(first[2:, :-3].ravel(), second[:-2, 3:].ravel())
    assert found == pytest.approx(expected[0, 1])
