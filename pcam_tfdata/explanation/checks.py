"""What maps of evidence look like, and whether they say what they seem to.

Maps are float64 [B, 96, 96], see `evidence.spread`.
"""

import matplotlib
import numpy as np
from scipy import ndimage, stats

from pcam_tfdata import schema

_BLUR = 6  # Pixels; so that a place is highest in its middle.
_OPACITY = 0.7  # Where evidence is strongest: nuclei must stay visible.
_COLORS = matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255


def share_center(maps: np.ndarray) -> np.ndarray:
    """Returns the share of evidence in the centre 32 x 32, by area: float64 [B].

    It is 1/9 where evidence is spread evenly, and NaN where there is none.
    """
    center = maps[:, schema.CENTER, schema.CENTER].sum(axis=(1, 2))
    return np.where(maps.any(axis=(1, 2)), center, np.nan)


def correlate(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the rank correlation of pairs of maps (Spearman): float64 [B].

    Of every fourth pixel of both sides. Pixels where no map has evidence are left
    out, for a network may not look there, whatever its weights. NaN where a map is
    constant.
    """
    pairs = np.stack([maps, others])[:, :, 2::4, 2::4]
    pairs = pairs[:, :, pairs.any(axis=(0, 1))]
    ranks = stats.rankdata(pairs, axis=2) - (pairs.shape[2] + 1) / 2
    length = np.linalg.norm(ranks, axis=2).prod(axis=0)
    product = ranks.prod(axis=0).sum(axis=1)
    return product / np.where(length > 0, length, np.nan)


def point(maps: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Returns whether the maximum of each map is tumor: float64 [B], 1 or 0.

    The pointing game (Zhang et al. 2016), without tolerance. A map without
    evidence points anywhere: it has the share of `tumor`, bool [B, 96, 96].
    """
    flat = _smooth(maps).reshape(len(maps), -1)
    tumor = tumor.reshape(len(maps), -1)
    hit = tumor[np.arange(len(maps)), flat.argmax(axis=1)]
    return np.where(flat.any(axis=1), hit, tumor.mean(axis=1))


def draw(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Returns patches, uint8 [B, 96, 96, 3], with their evidence laid over.

    The stronger the evidence, the brighter and denser its colour, up to yellow at
    the maximum of each patch. A line around the centre covers none of it.
    """
    level = _smooth(maps)
    highest = level.max(axis=(1, 2), keepdims=True)
    level /= np.where(highest > 0, highest, 1)
    opacity = _OPACITY * level[..., None]
    color = _COLORS[(255 * level).astype(np.uint8)]
    drawn = np.rint(image * (1 - opacity) + color * opacity).astype(np.uint8)
    around = slice(schema.CENTER.start - 1, schema.CENTER.stop + 1)
    is_line = np.zeros(schema.IMAGE_SHAPE[:2], bool)
    is_line[around, around] = True
    is_line[schema.CENTER, schema.CENTER] = False
    y, x = np.nonzero(is_line)  # Dashed, to be seen on any ground.
    drawn[:, y, x] = np.where((y + x) // 3 % 2, 255, 0)[:, None]
    return drawn


def _smooth(maps: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(maps, (0, _BLUR, _BLUR), mode="constant")
