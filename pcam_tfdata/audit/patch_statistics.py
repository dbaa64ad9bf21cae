"""Numbers that say how a patch is stained, and whether there is anything on it."""

from typing import NamedTuple

import numpy as np

from pcam_tfdata.audit import optical_density, perceptual

# Optical density, mean of the channels; grey level 219. Glass lies below.
TISSUE_DENSITY = 0.15
# Root mean square of the density's structure. Chosen by eye: BUILD_NOTES.md.
BLANK_DETAIL = 0.01


class Statistics(NamedTuple):
    """What was measured of patches; the first axis is patches.

    Attributes:
        channel_mean: float32 [n, 3], red, green and blue in [0, 255].
        channel_std: float32 [n, 3], over the pixels of the patch.
        density: float32 [n, 3], mean optical density of each channel.
        tissue: float32 [n], share of pixels that are no bare glass.
        detail: float32 [n], as `perceptual.describe` returns it.
        embeddings: float32 [n, 242], as `perceptual.describe` returns them.
    """

    channel_mean: np.ndarray
    channel_std: np.ndarray
    density: np.ndarray
    tissue: np.ndarray
    detail: np.ndarray
    embeddings: np.ndarray

    @property
    def is_blank(self) -> np.ndarray:
        """bool [n]: nothing to see, on white, grey or black ground.

        Structure counts towards the middle of a patch, where the label is
        decided; tissue in a corner alone leaves it nearly blank.
        """
        return self.detail < BLANK_DETAIL


def measure(images: np.ndarray) -> Statistics:
    """Returns what is measured of patches: uint8 [n, 96, 96, 3], C-contiguous."""
    densities = optical_density.of_pixels(images)
    gray = optical_density.mean_of_channels(densities)
    embeddings, detail = perceptual.describe(gray)
    mean = _mean_of_pixels(images)
    squares = _mean_of_pixels(np.multiply(images, images, dtype=np.uint16))
    return Statistics(
        channel_mean=mean,
        channel_std=np.sqrt(np.maximum(squares - mean**2, 0)),
        density=_mean_of_pixels(densities),
        tissue=(gray > TISSUE_DENSITY).mean(axis=(1, 2), dtype=np.float32),
        detail=detail,
        embeddings=embeddings,
    )


def _mean_of_pixels(values: np.ndarray) -> np.ndarray:
    # Down the rows first: 288 contiguous columns add up faster than 3.
    num_patches, height, width, channels = values.shape
    exact = np.uint32 if values.dtype.kind == "u" else np.float32
    sums = values.reshape(num_patches, height, -1).sum(axis=1, dtype=exact)
    sums = sums.reshape(num_patches, width, channels).sum(axis=1, dtype=exact)
    return (sums / (height * width)).astype(np.float32)
