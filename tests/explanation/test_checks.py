"""What is said of maps of evidence, on maps that are known."""

import numpy as np
import pytest
from scipy import stats

from pcam_tfdata.explanation import checks, evidence


def mark(*spots: tuple[int, int], size: int = 12) -> np.ndarray:
    """Maps of one place each, float64 [len(spots), 96, 96]."""
    places = np.zeros((len(spots), size, size))
    for place, spot in zip(places, spots, strict=True):
        place[spot] = 3.0
    return evidence.spread(places)


def test_share_of_the_centre_is_by_area():
    maps = mark((0, 0), (1, 1), (1, 0), (0, 1), size=3)
    np.testing.assert_allclose(
        checks.share_center(maps), [0, 1, 0, 0], atol=1e-12
    )
    # Of 7 places, the one from 27.4 to 41.1 is by 0.664 of its side within.
    by_side = (2 * 96 / 7 + 96 / 7 - 32) / (96 / 7)
    np.testing.assert_allclose(
        checks.share_center(mark((2, 2), size=7)), by_side**2
    )


def test_a_map_without_evidence_has_no_share():
    assert np.isnan(checks.share_center(np.zeros((2, 96, 96)))).all()


def test_correlation_is_that_of_ranks():
    rng = np.random.default_rng(0)
    maps, others = evidence.spread(rng.exponential(size=(8, 24, 24))).reshape(
        2, 4, 96, 96
    )
    expected = [
        stats.spearmanr(a[2::4, 2::4].ravel(), b[2::4, 2::4].ravel())[0]
        for a, b in zip(maps, others, strict=True)
    ]
    np.testing.assert_allclose(checks.correlate(maps, others), expected)
    np.testing.assert_allclose(checks.correlate(maps, maps**2), 1)
    np.testing.assert_allclose(checks.correlate(maps, 1 - maps), -1)


def test_correlation_leaves_out_what_no_network_sees():
    rng = np.random.default_rng(0)
    inner = rng.permuted(np.tile(np.arange(1.0, 17), (64, 2, 1)), axis=2)
    places = np.zeros((2, 64, 6, 6))
    places[:, :, 1:5, 1:5] = inner.swapaxes(0, 1).reshape(2, 64, 4, 4)
    found = checks.correlate(*map(evidence.spread, places))
    # With the border it would be about 0.6.
    assert abs(found.mean()) < 4 / np.sqrt(64 * 15)


def test_correlation_with_an_even_map_is_not_known():
    maps = mark((3, 3), (4, 4))
    even = np.ones((2, 96, 96))
    assert np.isnan(checks.correlate(maps, even)).all()
    assert np.isnan(checks.correlate(maps, np.zeros_like(maps))).all()
    blank = np.zeros((2, 96, 96))
    assert np.isnan(checks.correlate(blank, blank)).all()


@pytest.mark.parametrize("size", [3, 6, 10, 12])
def test_a_place_is_pointed_at_in_its_middle(size):
    width = 96 / size
    for spot in ((0, 0), (size // 2, 1), (size - 1, 0)):
        tumor = np.zeros((1, 96, 96), bool)
        y, x = ((np.array(spot) + 0.5) * width).astype(int)
        reach = max(2, int(width / 3))
        tumor[0, y - reach : y + reach, x - reach : x + reach] = True
        assert checks.point(mark(spot, size=size), tumor) == 1
        assert checks.point(mark(spot, size=size), ~tumor) == 0


def test_a_map_without_evidence_points_by_chance():
    tumor = np.zeros((1, 96, 96), bool)
    tumor[0, :24] = True
    assert checks.point(np.zeros((1, 96, 96)), tumor) == 0.25


def test_picture_is_the_patch_where_there_is_no_evidence():
    image = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), np.uint8)
    maps = mark((2, 2), (2, 2))
    maps[1] = 0
    drawn = checks.draw(image, maps)
    assert drawn.dtype == np.uint8 and drawn.shape == image.shape
    differs = (drawn != image).any(axis=-1)
    is_line = np.zeros((96, 96), bool)
    is_line[31:65, 31:65] = True
    is_line[32:64, 32:64] = False
    assert not differs[1][~is_line].any()
    assert differs[0, 16:24, 16:24].mean() > 0.9
    assert not differs[0, 70:, 70:].any()
    # The line is of two colors, which no ground hides.
    assert {tuple(c) for c in drawn[1][is_line]} == {(0, 0, 0), (255,) * 3}
