"""Embeddings forget moves of the square, small shifts and stain; not tissue."""

import numpy as np
import pytest
from conftest import make_clouds

from pcam_tfdata.audit import alignment, patch_statistics, perceptual


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return make_clouds(24)


def embed(images: np.ndarray) -> np.ndarray:
    return perceptual.describe(density_of(images))[0]


def density_of(images: np.ndarray) -> np.ndarray:
    return patch_statistics.mean_of_channels(
        patch_statistics.optical_density(images)
    )


def measure(images: np.ndarray) -> np.ndarray:
    return patch_statistics.measure(np.ascontiguousarray(images))


@pytest.mark.parametrize("move", range(alignment.NUM_MOVES))
def test_no_move_of_the_square_changes_an_embedding(patches, move):
    turned = alignment.turn(patches, move)
    np.testing.assert_allclose(embed(turned), embed(patches), atol=1e-3)


def test_no_move_of_the_square_changes_an_embedding_of_noise(random_patch):
    embeddings = embed(
        np.stack([alignment.turn(random_patch[None], m)[0] for m in range(8)])
    )
    np.testing.assert_allclose(embeddings - embeddings[0], 0, atol=1e-4)


def test_the_moves_are_eight_different_ones(random_patch):
    turned = {
        alignment.turn(random_patch[None], move).tobytes()
        for move in range(alignment.NUM_MOVES)
    }
    assert len(turned) == 8


def test_embeddings_have_length_1_and_little_in_common(patches):
    products = embed(patches) @ embed(patches).T
    np.testing.assert_allclose(np.diag(products), 1, atol=1e-4)
    assert np.abs(products[~np.eye(len(products), dtype=bool)]).max() < 0.6


def test_embedding_of_nothing_is_finite():
    nothing = np.full((2, 96, 96, 3), [[[[255]]], [[[0]]]], np.uint8)
    measured = measure(nothing)
    assert np.isfinite(measured["embedding"]).all()
    assert patch_statistics.is_blank(measured).all()


def test_power_is_that_of_a_slow_fourier_transform(random_patch):
    density = density_of(random_patch[None])
    places = np.arange(96) + 0.5
    window = np.sin(np.pi * places / 96) ** 2
    window /= np.sqrt((window**2).sum() * 96)
    spectrum = np.fft.fft2(density[0] * np.outer(window, window))
    power = np.abs(spectrum) ** 2
    quarter = power[:25, :25] + power[-np.arange(25)][:, :25]
    expected = (quarter + quarter.T) / 2
    found = perceptual._power(density)[0]
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-9)


@pytest.mark.parametrize("distance", [1, 4])
def test_moved_patch_keeps_most_of_its_embedding(patches, distance):
    moved = np.roll(patches, (distance, -distance), axis=(1, 2))
    similarity = (embed(moved) * embed(patches)).sum(axis=1)
    assert similarity.min() > 0.75


def test_stain_and_brightness_change_an_embedding_little(patches):
    darker = (255 * (patches / 255.0) ** [1.1, 0.9, 1.05]).astype(np.uint8)
    similarity = (embed(darker) * embed(patches)).sum(axis=1)
    assert similarity.min() > 0.95


def test_statistics_agree_with_plain_numpy(patches):
    measured = measure(patches)
    pixels = patches.astype(np.float64)
    densities = -np.log(np.maximum(pixels, 1) / 255)
    for found, expected in (
        (measured["channel_mean"], pixels.mean(axis=(1, 2))),
        (measured["channel_std"], pixels.std(axis=(1, 2))),
        (measured["density"], densities.mean(axis=(1, 2))),
        (measured["tissue"], (densities.mean(-1) > 0.15).mean(axis=(1, 2))),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_patch_with_tissue_is_not_blank_and_one_with_grain_is(patches):
    rng = np.random.default_rng(0)
    grain = rng.normal(235, 1, (4, 96, 96, 3)).astype(np.uint8)
    assert not patch_statistics.is_blank(measure(patches)).any()
    assert patch_statistics.is_blank(measure(grain)).all()
