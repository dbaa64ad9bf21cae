"""What a patch looks like, as a vector that no move of the square changes.

The vector is the power spectrum of the optical density under a round window.
Power forgets where things are, so a patch moved by some pixels keeps most of
it; frequencies that a quarter turn or a mirror exchanges are added up, so the 8
moves of the square (D4) keep all of it; and logarithms less their trend over
frequency forget stain, contrast and sharpness, which only scale it.
"""

import functools

import numpy as np

from pcam_tfdata import schema

# Cycles in a patch. Slower ones are shading, and faster ones what JPEG changes;
# 24 keeps unrelated patches further apart than 18 (BUILD_NOTES.md, Audit).
_LOWEST, _HIGHEST = 2, 24
EMBEDDING_SIZE = 242  # Frequencies between them that no move makes equal.
_TREND_WIDTH = 2.5  # Cycles; of the Gaussian that the trend is taken with.
_LEAST_POWER = 1e-12
_LEAST_WEIGHT = 1e-6


def describe(densities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what patches look like, and how much there is to see.

    Args:
        densities: float32 [n, 96, 96], optical density.

    Returns:
        Embeddings, float32 [n, 242] of length 1: of the same tissue
        their products are near 1, of unrelated patches 0 +- 0.1. And detail,
        float32 [n], the root mean square of the optical density's structure of
        4 to 48 pixels in size; near 0 there is nothing to see.
    """
    kept = _power(densities)[:, *_frequencies()]
    logs = np.log(kept + _LEAST_POWER) @ _trend_remover()
    lengths = np.linalg.norm(logs, axis=1, keepdims=True)
    detail = np.sqrt(kept.sum(axis=1))
    return logs / np.maximum(lengths, 1e-6), detail


def _power(densities: np.ndarray) -> np.ndarray:
    """Returns power by frequency, added up over moves: [n, 25, 25]."""
    waves = _waves()
    half = waves.shape[1] // 2
    # Cosines and sines along y and x, by two matrix products.
    parts = np.matmul(waves.T, densities @ waves)
    parts *= parts
    power = parts[:, :half, :half] + parts[:, half:, half:]
    power += parts[:, :half, half:] + parts[:, half:, :half]
    return power + power.transpose(0, 2, 1)


@functools.cache
def _waves() -> np.ndarray:
    """Returns cosines and sines under the window: float32 [96, 50]."""
    centers = np.arange(schema.PATCH_SIZE) + 0.5
    angles = 2 * np.pi / schema.PATCH_SIZE * np.outer(
        centers - schema.PATCH_SIZE / 2, np.arange(_HIGHEST + 1)
    )  # fmt: skip
    window = np.sin(np.pi * centers / schema.PATCH_SIZE) ** 2
    window /= np.sqrt((window**2).sum() * schema.PATCH_SIZE)
    waves = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return (window[:, None] * waves).astype(np.float32)


@functools.cache
def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the power that is kept: int64 [242] each."""
    rows, columns = np.tril_indices(_HIGHEST + 1)
    radius = np.hypot(rows, columns)
    kept = (radius >= _LOWEST) & (radius <= _HIGHEST)
    return rows[kept], columns[kept]


@functools.cache
def _trend_remover() -> np.ndarray:
    """Returns what takes the trend off logarithms: float32 [242, 242]."""
    radius = np.hypot(*_frequencies())
    distance = (radius[:, None] - radius) / _TREND_WIDTH
    weights = np.exp(-0.5 * distance**2)
    weights[weights < _LEAST_WEIGHT] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return (np.eye(len(radius)) - weights).T.astype(np.float32)
