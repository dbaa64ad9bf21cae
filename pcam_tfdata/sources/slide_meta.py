"""The CSV beside the official files: which slide a patch is of, and where."""

import math
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.system import csv_files, faults, name_arrays

_SLIDE, _X, _Y = "wsi", "coord_x", "coord_y"
_LARGEST = 2**53  # float64, as which pandas writes them, holds each up to it.


def read(path: str, num_patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads slide and coordinates of each patch.

    Args:
        path: Of a CSV file with the columns wsi, coord_x and coord_y, a row for
            each patch. Errors count rows from 0, as those of the pixels.
        num_patches: How many there are.

    Returns:
        bytes [num_patches], slides, empty where unknown; and int64
        [num_patches, 2], x and y.

    Raises:
        ValueError: there are more or fewer rows, a slide is no plain name, or a
            coordinate is no whole number.
    """
    rows = csv_files.read_csv(path, (_SLIDE, _X, _Y))
    if len(rows) != num_patches:
        raise ValueError(
            f"{path}: found {len(rows):,} rows, expected {num_patches:,}."
            " Fetch it again."
        )
    slides, x, y = zip(*rows, strict=True) if rows else ((), (), ())
    _check_slides(path, slides)
    coordinates = [_to_numbers(path, _X, x), _to_numbers(path, _Y, y)]
    return name_arrays.to_array(slides), np.stack(coordinates, axis=1)


def _check_slides(path: str, slides: Sequence[str]) -> None:
    known = sorted(set(slides) - {""})
    unfit = {known[place] for place in name_arrays.find_unfit(known)}
    if unfit:
        row = next(row for row, slide in enumerate(slides) if slide in unfit)
        raise ValueError(
            f"{path}: row {row}: found {_SLIDE} {faults.show(slides[row])},"
            f" expected {name_arrays.PLAIN}. Mend the row."
        )


def _to_numbers(path: str, column: str, texts: Sequence[str]) -> np.ndarray:
    """Returns whole numbers, int64 [num_patches]."""
    numbers = np.array([_parse(text) for text in texts], np.float64)
    is_bad = (np.abs(numbers) > _LARGEST) | (numbers != np.rint(numbers))
    if is_bad.any():
        row = int(is_bad.argmax())
        raise ValueError(
            f"{path}: row {row}: found {column} {faults.show(texts[row])},"
            " expected a whole number of pixels, at most 2^53. Mend the row or"
            " fetch the file again."
        )
    return numbers.astype(np.int64)


def _parse(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # It equals no number, not even itself.
