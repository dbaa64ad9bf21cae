"""Optical density: how much light the stains of a patch take away."""

import numpy as np

from pcam_tfdata import schema

_LEVELS = np.maximum(np.arange(256), 1) / 255
_OF_LEVEL = -np.log(_LEVELS).astype(np.float32)


def of_pixels(images: np.ndarray) -> np.ndarray:
    """Returns the optical density of RGB patches (Ruifrok & Johnston 2001).

    Args:
        images: uint8 [..., 3], RGB; clamped at 1.

    Returns:
        float32, same shape, natural-log units, in [0, log 255].
    """
    return np.take(_OF_LEVEL, images)


def mean_of_channels(densities: np.ndarray) -> np.ndarray:
    """Returns the mean over the channels: float32 [..., 3] to [...]."""
    # Added by hand: numpy's mean over a last axis of 3 is ten times slower.
    total = densities[..., 0] + densities[..., 1]
    total += densities[..., 2]
    return total / np.float32(schema.NUM_CHANNELS)
