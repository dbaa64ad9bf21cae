"""How one patch must be turned and moved to lie on another, and how well.

Small pictures of both, without shading and fine grain, are laid on each other
in all 8 moves of the square (D4) and all displacements at once, by Fourier
transforms. Pairs that fit at all are fitted once more at full size, and scored
by the correlation of the pixels that both have.
"""

import functools

import numpy as np

from pcam_tfdata import schema

NUM_MOVES = 8
MAX_SHIFT = 18  # Pixels along each axis.
_SMALL_SIZE = 32
_PIXELS = schema.PATCH_SIZE // _SMALL_SIZE
# Blurs, in pixels: what is kept lies between them.
_FINE_BLUR, _SMALL_BLUR, _COARSE_BLUR = 0.8, 1.5, 6.0
# Of the small pictures, under the window. Pairs below are not looked at again.
_LEAST_SMALL_SCORE = 0.25
_LEAST_ENERGY = 1e-9
_LEAST_WEIGHT = 1e-6

# The best way to lay the second patch of a pair on the first: the correlation of
# the pixels that both have, 0 where nothing fits; which of `turn`'s moves; and
# then by how many pixels down and to the right.
ALIGNMENT = np.dtype(
    [("score", "f4"), ("move", "i8"), ("down", "i8"), ("right", "i8")]
)


def turn(images: np.ndarray, move: int) -> np.ndarray:
    """Returns square images [n, size, size, ...] after a move of the square.

    Moves 0 to 3 are quarter turns; 4 to 7 the same of the mirrored image.
    """
    if move >= NUM_MOVES // 2:
        images = images[:, :, ::-1]
    return np.rot90(images, move % 4, axes=(1, 2))


def align(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns how the second patch of each pair lies on the first best.

    Args:
        first: float32 [n, 96, 96], optical density.
        second: float32 [n, 96, 96], that of the other patches.

    Returns:
        `ALIGNMENT` [n].
    """
    aligned = np.zeros(len(first), ALIGNMENT)
    small_scores, aligned["move"] = _best_moves(first, second)
    for pair in np.flatnonzero(small_scores >= _LEAST_SMALL_SCORE):
        move = aligned["move"][pair]
        (turned,) = turn(second[[pair]], move)
        fixed = _structure(first[pair], _FINE_BLUR, 1)
        moved = _structure(turned, _FINE_BLUR, 1)
        fits = _fits(_windowed(fixed), _windowed(moved), MAX_SHIFT)
        best = np.unravel_index(fits.argmax(), fits.shape)
        down, right = np.subtract(best, MAX_SHIFT)
        score = correlate(fixed, moved, down, right)
        aligned[pair] = score, move, down, right
    return aligned


def correlate(
    fixed: np.ndarray, moved: np.ndarray, down: int, right: int
) -> float:
    """Returns Pearson's correlation of the pixels that two images share.

    Args:
        fixed: float32 [size, size].
        moved: float32 [size, size], laid on `fixed` after it was moved.
        down: Pixels that it was moved down; negative ones are upwards.
        right: Pixels that it was moved right; negative ones are to the left.
    """
    shared = fixed[_overlap(down)][:, _overlap(right)]
    other = moved[_overlap(-down)][:, _overlap(-right)]
    shared, other = shared - shared.mean(), other - other.mean()
    energy = np.vdot(shared, shared) * np.vdot(other, other)
    if energy < _LEAST_ENERGY:
        return 0.0
    return float(np.vdot(shared, other) / np.sqrt(energy))


def _overlap(shift: int) -> slice:
    return slice(max(0, shift), min(0, shift) or None)


def _best_moves(
    first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns score [n] and number [n] of the best move at small size."""
    fixed = _windowed(_structure(first, _SMALL_BLUR, _PIXELS))
    moved = _windowed(_structure(second, _SMALL_BLUR, _PIXELS))
    turned = np.stack([turn(moved, move) for move in range(NUM_MOVES)])
    best = _fits(fixed, turned, MAX_SHIFT // _PIXELS).max(axis=(2, 3))
    energies = (fixed**2).sum((1, 2)) * (moved**2).sum((1, 2))
    best /= np.sqrt(np.maximum(energies, _LEAST_ENERGY))
    return best.max(axis=0), best.argmax(axis=0)


def _fits(fixed: np.ndarray, moved: np.ndarray, largest: int) -> np.ndarray:
    """Returns the product of images at all shifts up to the largest.

    Args:
        fixed: float32 [..., size, size].
        moved: float32 [..., size, size].
        largest: Pixels along each axis.

    Returns:
        float32 [..., 2 * largest + 1, 2 * largest + 1].
    """
    products = np.fft.rfft2(fixed) * np.fft.rfft2(moved).conj()
    fits = np.fft.irfft2(products, moved.shape[-2:])
    near = np.arange(-largest, largest + 1) % moved.shape[-1]
    return fits[..., near, :][..., near]


def _structure(densities: np.ndarray, blur: float, pixels: int) -> np.ndarray:
    """Returns images without shading; `pixels` x `pixels` become one."""
    fine = _blurrer(blur, pixels)
    coarse = _blurrer(_COARSE_BLUR, pixels)
    return fine @ densities @ fine.T - coarse @ densities @ coarse.T


@functools.cache
def _blurrer(blur: float, pixels: int) -> np.ndarray:
    """Returns a Gaussian blur along one axis: [96 / pixels, 96].

    It fits a line at each pixel, so that shading stays what it is up to the
    edges, and differences of blurs are free of it (local linear regression).
    """
    fine = np.arange(schema.PATCH_SIZE) + 0.5
    centers = fine.reshape(-1, pixels).mean(axis=1)
    distance = fine - centers[:, None]
    weights = np.exp(-0.5 * (distance / blur) ** 2)
    weights[weights < _LEAST_WEIGHT] = 0  # Denormals are slow to multiply.
    level, slope, bend = (
        (weights * distance**power).sum(axis=1, keepdims=True)
        for power in range(3)
    )
    weights *= (bend - slope * distance) / (level * bend - slope**2)
    return weights.astype(np.float32)


def _windowed(images: np.ndarray) -> np.ndarray:
    """Returns images [..., size, size] that fade out towards their edges."""
    size = images.shape[-1]
    window = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    window = window.astype(np.float32)
    return images * (window[:, None] * window)
