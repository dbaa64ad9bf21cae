"""Numbers that say how a patch is stained, and whether there is anything on it."""

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.audit import perceptual

# Optical density, mean of the channels; grey level 219. Glass lies below.
TISSUE_DENSITY = 0.15
# Root mean square of the density's structure. Chosen by eye: BUILD_NOTES.md.
BLANK_DETAIL = 0.01

# What is measured of a patch: red, green and blue in [0, 255], their standard
# deviation over the pixels, and their optical density; the share of pixels that
# are no bare glass; and what `perceptual.describe` returns.
MEASURES = np.dtype(
    [
        ("channel_mean", "f4", schema.NUM_CHANNELS),
        ("channel_std", "f4", schema.NUM_CHANNELS),
        ("density", "f4", schema.NUM_CHANNELS),
        ("tissue", "f4"),
        ("detail", "f4"),
        ("embedding", "f2", perceptual.EMBEDDING_SIZE),
    ]
)
_DENSITY_OF_LEVEL = -np.log(np.maximum(np.arange(256), 1) / 255).astype("f4")


def measure(images: np.ndarray) -> np.ndarray:
    """Returns what is measured of patches: `MEASURES` [n].

    Args:
        images: uint8 [n, 96, 96, 3], C-contiguous.
    """
    measured = np.empty(len(images), MEASURES)
    densities = optical_density(images)
    gray = mean_of_channels(densities)
    mean = _mean_of_pixels(images)
    squares = _mean_of_pixels(np.multiply(images, images, dtype=np.uint16))
    embeddings, detail = perceptual.describe(gray)
    measured["channel_mean"] = mean
    measured["channel_std"] = np.sqrt(np.maximum(squares - mean**2, 0))
    measured["density"] = _mean_of_pixels(densities)
    measured["tissue"] = (gray > TISSUE_DENSITY).mean(axis=(1, 2))
    measured["detail"] = detail
    measured["embedding"] = embeddings
    return measured


def is_blank(measured: np.ndarray) -> np.ndarray:
    """Returns which patches have nothing to see on them: bool [n].

    The ground may be white, grey or black. Structure counts towards the middle
    of a patch, where the label is decided; tissue in a corner alone leaves it
    nearly blank.
    """
    return measured["detail"] < BLANK_DETAIL


def optical_density(images: np.ndarray) -> np.ndarray:
    """Returns the optical density of RGB patches (Ruifrok & Johnston 2001).

    Args:
        images: uint8 [..., 3], RGB; clamped at 1.

    Returns:
        float32, same shape, natural-log units, in [0, log 255].
    """
    return np.take(_DENSITY_OF_LEVEL, images)


def mean_of_channels(densities: np.ndarray) -> np.ndarray:
    """Returns the mean over the channels: float32 [..., 3] to [...]."""
    # Added by hand: numpy's mean over a last axis of 3 is ten times slower.
    total = densities[..., 0] + densities[..., 1]
    total += densities[..., 2]
    return total / np.float32(schema.NUM_CHANNELS)


def _mean_of_pixels(values: np.ndarray) -> np.ndarray:
    # Down the rows first: 288 contiguous columns add up faster than 3.
    num_patches, height, width, channels = values.shape
    exact = np.uint32 if values.dtype.kind == "u" else np.float32
    sums = values.reshape(num_patches, height, -1).sum(axis=1, dtype=exact)
    sums = sums.reshape(num_patches, width, channels).sum(axis=1, dtype=exact)
    return (sums / (height * width)).astype(np.float32)
