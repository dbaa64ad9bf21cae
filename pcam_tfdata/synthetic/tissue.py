"""Drawn tissue: cells, stroma and stain, as a scanner would see them.

A patch is eosin-stained stroma with fibres and gaps, small round or spindle
nuclei, and, in most patches, nests of tumor cells with large irregular nuclei.
Stains mix in optical density (Beer-Lambert; Ruifrok & Johnston 2001). Pure: all
follows from the random generator that is handed in.
"""

import dataclasses
import functools

import numpy as np
from numpy.random import Generator

from pcam_tfdata import schema

ATLAS_STREAM = 3  # Under a seed; kaggle_folder.py has the others.

_NEGATIVE_TUMOR_SHARE = 0.75  # Negatives with tumor beside the centre.

# Optical density of a unit of stain: two published readings of H&E, between
# which the slides lie. Rows: hematoxylin, eosin; columns: red, green, blue.
_RUIFROK_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))
_MACENKO_STAINS = ((0.56, 0.72, 0.41), (0.22, 0.80, 0.56))

# Pixels, of about 1 um as in PCam.
_TILE_SIZE = 4 * schema.PATCH_SIZE
_BENIGN_REACH = 8  # From the middle of a stamp to its border: a spindle fits.
_TUMOR_REACH = 12  # The largest tumor cell fits.
_MARGIN = 2 * _TUMOR_REACH  # A stamp that touches the tile needs no clipping.
_BENIGN_SPACING = 7.5  # Between neighbours, where lymphocytes crowd.
_TUMOR_SPACING = 13.0  # Below half of the centre: it never lacks a cell.

_STAMPS_PER_BANK = 64


def draw_stain(rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns the colours of a slide, within what is seen of H&E.

    Returns:
        Density, float32 [2, 3]: what a unit of hematoxylin and of eosin takes
        from red, green and blue, natural-log units. And light, float32 [3]: the
        glass without tissue, in [0, 255].
    """
    weight = rng.uniform()
    density = np.asarray(_RUIFROK_STAINS) * weight
    density += np.asarray(_MACENKO_STAINS) * (1 - weight)
    density += rng.normal(0, 0.04, density.shape)
    density = np.maximum(density, 0.02)  # No stain emits light.
    density /= np.linalg.norm(density, axis=1, keepdims=True)
    density *= rng.uniform((0.75, 0.6), 1.3)[:, None]
    light = rng.uniform(232, 250, 3)
    return density.astype(np.float32), light.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class _Cells:
    """A tile crowded with cells, to choose from.

    Attributes:
        layers: float32 [2, 384, 384], depth below the surface of a cell, in
            pixels, and hematoxylin; 0 where no cell is.
        owner: int [384, 384], the cell of a pixel, as an index of `points`.
        points: int [2, k], y and x of the middle of each cell.
    """

    layers: np.ndarray
    owner: np.ndarray
    points: np.ndarray


@dataclasses.dataclass(frozen=True)
class Atlas:
    """The shapes that patches are cut from: drawing them once is what is fast.

    Attributes:
        stroma: float32 [384, 384], eosin.
        gaps, crowding: float32 [384, 384], mean 0, deviation 1.
        grain: float32 [384, 384], noise of the scanner, in grey levels.
        benign, tumor: Cells of either kind.
    """

    stroma: np.ndarray
    gaps: np.ndarray
    crowding: np.ndarray
    grain: np.ndarray
    benign: _Cells
    tumor: _Cells


@functools.lru_cache(maxsize=1)
def draw_atlas(seed: int) -> Atlas:
    """Returns the shapes of a seed; takes as long as some hundred patches."""
    rng = np.random.default_rng([seed, ATLAS_STREAM])
    return Atlas(
        stroma=_draw_stroma(rng),
        gaps=_draw_noise(rng, 14, 14),
        crowding=_draw_noise(rng, 10, 10),
        grain=4 * rng.standard_normal((_TILE_SIZE, _TILE_SIZE), np.float32),
        benign=_draw_cells(rng, _draw_benign_stamps(rng), _BENIGN_SPACING),
        tumor=_draw_cells(rng, _draw_tumor_stamps(rng), _TUMOR_SPACING),
    )


def draw_patch(
    rng: Generator,
    atlas: Atlas,
    stain: tuple[np.ndarray, np.ndarray],
    positive: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns one patch, uint8 [96, 96, 3], and its tumor, bool [96, 96]."""
    cell, tumor_nuclei = _draw_tumor(rng, atlas, positive)
    # How bare the glass is, in [0, 1].
    threshold = (0.3, 1.2, 2.0, np.inf)[rng.integers(4)]
    gap = np.clip(4 * (_crop(rng, atlas.gaps) - threshold), 0, 1) * (1 - cell)
    benign_nuclei = _draw_benign(rng, atlas, gap + cell)
    eosin = (_crop(rng, atlas.stroma) + 0.5 * gap) * (1 - gap)
    hematoxylin = 0.24 * eosin + benign_nuclei
    hematoxylin += cell * (0.22 - hematoxylin) + tumor_nuclei
    layers = np.stack([hematoxylin, eosin, cell])
    hematoxylin, eosin, cell = _turn(rng, layers)
    # What the scanner sees through two stains.
    density, light = stain
    h, e = -density[..., None, None]
    seen = np.exp(h * hematoxylin + e * eosin) * light[:, None, None]
    seen += _crop(rng, atlas.grain)
    image = np.clip(seen, 0, 255).astype(np.uint8)
    return np.moveaxis(image, 0, -1), cell > 0.5


def _draw_noise(rng: Generator, y_scale: float, x_scale: float) -> np.ndarray:
    """Returns Gaussian noise, smooth over so many pixels, that wraps around."""
    y_frequency = np.fft.fftfreq(_TILE_SIZE)[:, None]
    x_frequency = np.fft.rfftfreq(_TILE_SIZE)
    squares = (y_scale * y_frequency) ** 2 + (x_scale * x_frequency) ** 2
    gain = np.exp(-0.5 * np.pi**2 * squares).astype(np.float32)
    white = rng.standard_normal((_TILE_SIZE, _TILE_SIZE), np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * gain, s=white.shape)
    return (noise - noise.mean()) / noise.std()


def _draw_stroma(rng: Generator) -> np.ndarray:
    """Returns eosin in wavy fibres: the contour lines of a smooth landscape."""
    streaks = np.sin(10 * _draw_noise(rng, 9, 24))
    streaks += 0.8 * _draw_noise(rng, 0.8, 2)
    return np.maximum(0.42 + 0.11 * streaks, 0.03)


def _draw_outlines(
    rng: Generator,
    reach: int,
    radius: tuple[float, float],
    stretch: tuple[float, float],
    roughness: float,
) -> np.ndarray:
    """Returns signed distances to random outlines, in pixels, inside positive.

    Args:
        reach: Pixels from the middle of a stamp to its border.
        radius: The range of the mean radius, in pixels.
        stretch: The range of the ratio of the long axis to the short one.
        roughness: The largest height of a wave on the outline, in radii.

    Returns:
        float32 [64, 2 * reach + 1, 2 * reach + 1].
    """

    def uniform(low: float, high: float) -> np.ndarray:
        values = rng.uniform(low, high, (_STAMPS_PER_BANK, 1, 1))
        return values.astype(np.float32)

    angle = uniform(0, np.pi)
    ratio = np.sqrt(uniform(*stretch))
    middle = np.arange(-reach, reach + 1, dtype=np.float32)
    y, x = middle[:, None], middle
    along = (x * np.cos(angle) + y * np.sin(angle)) / ratio
    across = (y * np.cos(angle) - x * np.sin(angle)) * ratio
    direction = np.arctan2(across, along)
    outline = np.ones_like(direction)
    for lobes in (2, 3, 5):
        height = uniform(-roughness, roughness)
        outline += height * np.cos(lobes * direction + uniform(0, 2 * np.pi))
    return outline * uniform(*radius) - np.hypot(along, across)


def _draw_chromatin(
    rng: Generator,
    inside: np.ndarray,
    mottle: float,
    strength: tuple[float, float],
) -> np.ndarray:
    """Returns mottled hematoxylin within outlines, float32 like `inside`."""
    chromatin = 1 + mottle * rng.standard_normal(inside.shape, np.float32)
    chromatin += 0.6 * np.exp(-np.square(inside - 0.8))  # A dark rim.
    strengths = rng.uniform(*strength, (len(inside), 1, 1)).astype(np.float32)
    return np.clip(0.6 * inside + 0.5, 0, 1) * chromatin * strengths


def _draw_benign_stamps(rng: Generator) -> np.ndarray:
    """Returns lymphocytes and, every fourth, spindle-shaped fibroblasts."""
    lymphocytes = _draw_outlines(rng, _BENIGN_REACH, (2.7, 3.8), (1, 1.4), 0.10)
    spindles = _draw_outlines(rng, _BENIGN_REACH, (2.3, 3.2), (2, 4), 0.12)
    is_spindle = np.arange(_STAMPS_PER_BANK)[:, None, None] % 4 == 0
    inside = np.where(is_spindle, spindles, lymphocytes)
    nucleus = _draw_chromatin(rng, inside, 0.2, (0.7, 1.5))
    return np.stack([np.maximum(inside + 1, 0), nucleus], axis=1)


def _draw_tumor_stamps(rng: Generator) -> np.ndarray:
    """Returns tumor cells: a large, uneven nucleus in some cytoplasm."""
    inside = _draw_outlines(rng, _TUMOR_REACH, (4.2, 6.6), (1, 1.7), 0.14)
    nucleus = _draw_chromatin(rng, inside, 0.3, (0.5, 1.1))
    return np.stack([np.maximum(inside + 3, 0), nucleus], axis=1)


def _draw_cells(rng: Generator, stamps: np.ndarray, spacing: float) -> _Cells:
    """Returns a tile of stamps, float32 [64, 2, k, k], the deepest on top."""
    points = _scatter(rng, spacing)
    size = _TILE_SIZE + 2 * _MARGIN
    layers = np.zeros((2, size, size), np.float32)
    owner = np.zeros((size, size), np.intp)
    width = stamps.shape[-1]
    choices = rng.integers(0, len(stamps), len(points))
    for i, (y, x) in enumerate((points + _MARGIN - width // 2).tolist()):
        stamp = stamps[choices[i]]
        window = layers[:, y : y + width, x : x + width]
        is_on_top = stamp[0] > window[0]
        np.copyto(window, stamp, where=is_on_top)
        owner[y : y + width, x : x + width][is_on_top] = i
    tile = slice(_MARGIN, -_MARGIN)
    points = np.ascontiguousarray(points.T)
    return _Cells(layers[:, tile, tile], owner[tile, tile], points)


def _scatter(rng: Generator, spacing: float) -> np.ndarray:
    """Returns points on a shaken grid, int [k, 2], on and just off the tile."""
    start, stop = -_TUMOR_REACH, _TILE_SIZE + _TUMOR_REACH
    steps = np.arange(start, stop, spacing)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1)
    grid[::2, :, 1] += spacing / 2
    grid += rng.uniform(-0.35 * spacing, 0.35 * spacing, grid.shape)
    return np.rint(grid.reshape(-1, 2)).astype(np.intp).clip(start, stop - 1)


def _draw_tumor(rng: Generator, atlas: Atlas, positive: bool) -> np.ndarray:
    """Returns coverage and hematoxylin of tumor cells, float32 [2, 96, 96]."""
    if not positive and rng.uniform() > _NEGATIVE_TUMOR_SHARE:
        return np.zeros((2, schema.PATCH_SIZE, schema.PATCH_SIZE), np.float32)
    corner = _draw_corner(rng)
    near, y, x = _find_near(atlas.tumor, corner)
    chosen = near[_choose_tumor(rng, y, x, positive)]
    layers = _cut(atlas.tumor, corner, chosen)
    layers[0] = np.minimum(layers[0] / 2, 1)  # Soft over the outer 2 pixels.
    return layers


def _choose_tumor(
    rng: Generator, y: np.ndarray, x: np.ndarray, positive: bool
) -> np.ndarray:
    """Returns which of the cells are tumor, bool [k], in one or two nests.

    A nest is thrown until it fits the label: a positive has a tumor cell with
    its middle in the centre, a negative none that can reach the centre.
    """
    middle = (schema.PATCH_SIZE - 1) / 2
    offset = np.maximum(abs(y - middle), abs(x - middle))
    is_visible = offset < schema.PATCH_SIZE / 2
    reach = 0 if positive else _TUMOR_REACH
    is_central = offset < schema.CENTER_SIZE / 2 + reach
    is_tumor = np.zeros(len(y), bool)
    for radius in rng.uniform(9, 26, rng.integers(1, 3)):
        while True:
            nest_y, nest_x = rng.uniform(0, schema.PATCH_SIZE, 2)
            squares = (y - nest_y) ** 2 + (x - nest_x) ** 2
            nested = is_tumor | (squares < radius * radius)
            is_seen = (nested & is_visible).any()
            if is_seen and (nested & is_central).any() == positive:
                break
        is_tumor = nested
    return is_tumor


def _draw_benign(rng: Generator, atlas: Atlas, taken: np.ndarray) -> np.ndarray:
    """Returns hematoxylin of benign nuclei, float32 [96, 96].

    Most nuclei are kept where the tissue is crowded, few elsewhere, and none on
    the pixels that are `taken`, float32 [96, 96].
    """
    corner = _draw_corner(rng)
    near, y, x = _find_near(atlas.benign, corner)
    y, x = np.clip((y, x), 0, schema.PATCH_SIZE - 1)
    is_kept = _crop(rng, atlas.crowding)[y, x] < rng.uniform(-1.5, 2.5)
    is_kept |= rng.random(len(near), np.float32) < 0.12
    is_kept &= taken[y, x] < 0.5
    return _cut(atlas.benign, corner, near[is_kept])[1]


def _find_near(cells: _Cells, corner: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns which cells can reach a window, and their y and x in it."""
    y, x = cells.points - corner[:, None]
    middle = schema.PATCH_SIZE // 2
    reach = middle + _TUMOR_REACH
    near = np.flatnonzero(
        (abs(y - middle) <= reach) & (abs(x - middle) <= reach)
    )
    return near, y[near], x[near]


def _cut(cells: _Cells, corner: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns the layers of a window with the chosen cells, each one whole."""
    is_kept = np.zeros(cells.points.shape[1], bool)
    is_kept[chosen] = True
    return _window(cells.layers, corner) * is_kept[_window(cells.owner, corner)]


def _draw_corner(rng: Generator) -> np.ndarray:
    return rng.integers(0, _TILE_SIZE - schema.PATCH_SIZE + 1, 2)


def _window(tile: np.ndarray, corner: np.ndarray) -> np.ndarray:
    y, x = corner
    return tile[..., y : y + schema.PATCH_SIZE, x : x + schema.PATCH_SIZE]


def _crop(rng: Generator, tile: np.ndarray) -> np.ndarray:
    """Returns a random 96 x 96 window of a tile."""
    return _window(tile, _draw_corner(rng))


def _turn(rng: Generator, layers: np.ndarray) -> np.ndarray:
    """Returns [layers, 96, 96] in one of the eight positions of a square."""
    flip_y, flip_x, transpose = rng.integers(0, 2, 3).tolist()
    turned = layers[:, :: 1 - 2 * flip_y, :: 1 - 2 * flip_x]
    return np.ascontiguousarray(turned.swapaxes(1, 2) if transpose else turned)
