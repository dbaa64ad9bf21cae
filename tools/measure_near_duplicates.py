"""Measures what `pcam audit` misses and mistakes among near duplicates.

    python tools/measure_near_duplicates.py --input_dir=FOLDER,FOLDER \
        --output_dir=measured

Reads every image of 96 x 96 below the folders. Patches are altered on purpose,
and the share that is not found again is printed, one line an alteration. Then
the unaltered patches are searched as they are; what is found is counted by
score and drawn on contact sheets, the lowest scores first, to be judged by eye.
"""

import concurrent.futures
import io
import itertools
import os
from collections.abc import Callable, Sequence

import numpy as np
from absl import app, flags
from PIL import Image

from pcam_tfdata import schema
from pcam_tfdata.audit import (
    alignment,
    near_duplicates,
    optical_density,
    patch_statistics,
    similarity_search,
)
from pcam_tfdata.system import workers

_INPUT_DIRS = flags.DEFINE_list("input_dir", None, "Folders with images.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "For contact sheets.")
_NUM_ALTERED = flags.DEFINE_integer("num_altered", 2000, "Patches to alter.")
_NUM_PATCHES = flags.DEFINE_integer(
    "num_patches", 220_025, "Size of the set that the search is tuned for."
)
_ENDINGS = (".tif", ".png", ".jpg", ".jpeg")
_BLOCK = 64
_SHEET_COLUMNS, _SHEET_ROWS = 6, 12
_SCORE_EDGES = (0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.01)
_DIRECTIONS = (
    (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)
)  # fmt: skip

# Of patches uint8 [n, 96, 96, 3], unrelated ones, and random numbers.
Alteration = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def main(_: list[str]) -> None:
    """Prints both tables and writes the sheets."""
    images = _read_all(_INPUT_DIRS.value)
    embeddings, blank = _describe(images)
    searched = np.flatnonzero(~blank)
    print(
        f"{len(images):,} different patches, {blank.sum():,} of them nearly"
        " blank and left out\n"
    )
    _measure_misses(images, embeddings, searched)
    _measure_false_alarms(images, embeddings, searched)


def _measure_misses(
    images: np.ndarray, embeddings: np.ndarray, searched: np.ndarray
) -> None:
    rng = np.random.default_rng(0)
    count = min(_NUM_ALTERED.value, len(searched))
    chosen = np.sort(rng.choice(searched, count, replace=False))
    originals = images[chosen]
    others = images[rng.choice(searched, count)]
    print(
        "| alteration | missed by the search | by the comparison | in all |"
        "\n|---|---|---|---|"
    )
    for name, alter in _alterations().items():
        altered = alter(originals, others, rng)
        looks, blank = _describe(altered)
        met = _meets(embeddings[chosen], looks) & ~blank
        scores, _, _ = _align(originals, altered)
        fits = scores >= near_duplicates.LEAST_SCORE
        print(
            f"| {name} | {(~met).mean():.2%} | {(~fits).mean():.2%} |"
            f" {(~(met & fits)).mean():.2%} |",
            flush=True,
        )


def _meets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns whether the search would compare a pair and keep it: bool [n].

    By its product, bits and sorts only: nothing is cut off as in a crowd.
    """
    similar = (first * second).sum(axis=1) >= near_duplicates.LEAST_SIMILARITY
    bits = similarity_search.hash_bits(first) == similarity_search.hash_bits(
        second
    )
    most = similarity_search.most_bits(near_duplicates.LEAST_SIMILARITY)
    similar &= (~bits).sum(axis=0) <= most
    sorts = similarity_search.choose_bits(_NUM_PATCHES.value)
    return similar & np.any([bits[sort].all(axis=0) for sort in sorts], axis=0)


def _measure_false_alarms(
    images: np.ndarray, embeddings: np.ndarray, searched: np.ndarray
) -> None:
    found = similarity_search.find_pairs(
        embeddings[searched],
        least_similarity=near_duplicates.LEAST_SIMILARITY,
        num_threads=workers.count_cores(),
    )
    first, second = searched[found.first], searched[found.second]
    scores, moves, shifts = _align(images[first], images[second])
    num_pairs = len(searched) * (len(searched) - 1) // 2
    print(
        f"\n{num_pairs:,} pairs; {len(first):,} candidates\n\n"
        "| score | pairs | in a million | turned or mirrored | moved |\n"
        "|---|---|---|---|---|"
    )
    for low, high in itertools.pairwise(_SCORE_EDGES):
        inside = (scores >= low) & (scores < high)
        moved = inside & (moves == 0) & (shifts != 0).any(axis=1)
        print(
            f"| {low:.2f} - {min(high, 1):.2f} | {inside.sum():,} |"
            f" {inside.sum() / num_pairs * 1e6:.2f} |"
            f" {(inside & (moves > 0)).sum():,} | {moved.sum():,} |"
        )
    _draw_sheets(images, first, second, scores)


def _draw_sheets(
    images: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    scores: np.ndarray,
) -> None:
    if not _OUTPUT_DIR.value:
        return
    os.makedirs(_OUTPUT_DIR.value, exist_ok=True)
    size = _SHEET_COLUMNS * _SHEET_ROWS
    order = np.argsort(scores, kind="stable")
    accepted = order[scores[order] >= near_duplicates.LEAST_SCORE]
    refused = order[scores[order] < near_duplicates.LEAST_SCORE][::-1]
    spread = np.linspace(0, max(len(accepted) - 1, 0), size).astype(int)
    sheets = {
        "lowest_accepted": accepted[:size],
        "accepted": accepted[spread] if len(accepted) else accepted,
        "highest_refused": refused[:size],
    }
    for name, chosen in sheets.items():
        path = os.path.join(_OUTPUT_DIR.value, f"{name}.png")
        _draw_sheet(images, first[chosen], second[chosen]).save(path)


def _draw_sheet(
    images: np.ndarray, first: np.ndarray, second: np.ndarray
) -> Image.Image:
    size = schema.PATCH_SIZE
    step = size + 4, 2 * size + 12
    sheet = np.full(
        (_SHEET_ROWS * step[0], _SHEET_COLUMNS * step[1], 3), 255, np.uint8
    )
    for place, pair in enumerate(zip(first, second, strict=True)):
        top = place // _SHEET_COLUMNS * step[0]
        left = place % _SHEET_COLUMNS * step[1]
        both = np.hstack(images[list(pair)])
        sheet[top : top + size, left : left + 2 * size] = both
    return Image.fromarray(sheet)


def _alterations() -> dict[str, Alteration]:
    def nothing(images, _others, _rng):
        return images

    altered: dict[str, Alteration] = {"none": nothing}
    for quality in (90, 75, 50):
        altered[f"JPEG, quality {quality}"] = _jpeg(quality)
    for distance in (1, 2, 3, 4, 6, 8, 12, 16):
        altered[f"moved by {distance} pixels"] = _moved(distance)
    altered["optical density x 0.9-1.1 a channel"] = _stained(0.1, 0)
    altered["brightness -20 to +20"] = _stained(0, 20)
    for move in range(1, alignment.NUM_MOVES):
        altered[f"move {move} of the square"] = _turned(move)
    altered["moved by 4, turned, restained, JPEG 75"] = _all(
        _moved(4), _turned(5), _stained(0.1, 10), _jpeg(75)
    )
    altered["moved by 8, turned, restained, JPEG 75"] = _all(
        _moved(8), _turned(5), _stained(0.1, 10), _jpeg(75)
    )
    return altered


def _all(*steps: Alteration) -> Alteration:
    def alter(images, others, rng):
        for step in steps:
            images = step(images, others, rng)
        return images

    return alter


def _jpeg(quality: int) -> Alteration:
    def encode(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return lambda images, _others, _rng: np.stack([*map(encode, images)])


def _moved(distance: int) -> Alteration:
    """Along an axis or both; what comes in is of an unrelated patch."""

    def alter(images, others, rng):
        altered = others.copy()
        for place, image in enumerate(images):
            down, right = distance * np.array(_DIRECTIONS[rng.integers(8)])
            rows, columns = _overlap(down), _overlap(right)
            shared = image[_overlap(-down)][:, _overlap(-right)]
            altered[place][rows, columns] = shared
        return altered

    return alter


def _overlap(shift: int) -> slice:
    return slice(max(0, shift), min(0, shift) or None)


def _stained(density: float, brightness: float) -> Alteration:
    def alter(images, _others, rng):
        shape = (len(images), 1, 1, 3)
        factors = rng.uniform(1 - density, 1 + density, shape)
        offsets = rng.uniform(-brightness, brightness, (len(images), 1, 1, 1))
        densities = optical_density.of_pixels(images) * factors
        altered = 255 * np.exp(-densities) + offsets
        return np.clip(np.round(altered), 0, 255).astype(np.uint8)

    return alter


def _turned(move: int) -> Alteration:
    return lambda images, _others, _rng: alignment.turn(images, move)


def _describe(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings [n, size] and whether patches are blank [n]."""
    looks, blank = [], []
    for start in range(0, len(images), _BLOCK):
        block = np.ascontiguousarray(images[start : start + _BLOCK])
        statistics = patch_statistics.measure(block)
        looks.append(statistics.embeddings)
        blank.append(statistics.is_blank)
    return np.concatenate(looks), np.concatenate(blank)


def _align(first: np.ndarray, second: np.ndarray) -> alignment.Alignments:
    parts = []
    for start in range(0, max(len(first), 1), _BLOCK):
        block = slice(start, start + _BLOCK)
        sides = [
            optical_density.mean_of_channels(
                optical_density.of_pixels(side[block])
            )
            for side in (first, second)
        ]
        parts.append(alignment.align(*sides))
    return alignment.Alignments(*map(np.concatenate, zip(*parts, strict=True)))


def _read_all(input_dirs: Sequence[str]) -> np.ndarray:
    """Returns the patches below some folders, equal ones once."""
    paths = sorted(
        os.path.join(folder, name)
        for input_dir in input_dirs
        for folder, _, names in os.walk(input_dir)
        for name in names
        if name.lower().endswith(_ENDINGS)
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = {schema.hash_pixels(i): i for i in pool.map(_read, paths)}
    if not images:
        raise app.UsageError(f"{input_dirs}: found no image of {_ENDINGS}.")
    return np.stack(list(images.values()))


def _read(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.ascontiguousarray(image.convert("RGB"))


if __name__ == "__main__":
    flags.mark_flag_as_required("input_dir")
    app.run(main)
