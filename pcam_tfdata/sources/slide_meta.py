"""The CSV beside the official files: which slide a patch is of, and where."""

import dataclasses

import numpy as np
import pandas

from pcam_tfdata.sources import csv_rows, listing
from pcam_tfdata.system import faults, name_arrays

_CENTER_TUMOR = "center_tumor_patch"
_TRUTH = {"true": 1, "false": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}
_LARGEST = 2**53  # float64, as which pandas writes them, holds each up to it.


def add_to(patches: listing.Listing, path: str) -> listing.Listing:
    """Returns patches with slides, coordinates and what their centres hold.

    Args:
        patches: A whole file of them.
        path: A CSV file with the columns wsi, coord_x and coord_y, a row for
            each patch; it may have center_tumor_patch. Errors count rows from
            0, as those of the pixels. A slide may be empty: not known.

    Raises:
        ValueError: there are more or fewer rows, a slide is no plain name, or a
            coordinate is no whole number.
    """
    columns = ("wsi", "coord_x", "coord_y", _CENTER_TUMOR)
    rows = csv_rows.read(
        path,
        optional=[_CENTER_TUMOR],
        **{column: (column,) for column in columns},
    )
    if len(rows) != len(patches):
        raise ValueError(
            f"{path}: found {len(rows):,} rows, expected {len(patches):,}."
            " Fetch it again."
        )
    _check_slides(path, rows["wsi"])
    coordinates = [_to_numbers(path, rows[c]) for c in ("coord_x", "coord_y")]
    center_tumor = None
    if _CENTER_TUMOR in rows:
        truth = rows[_CENTER_TUMOR].str.lower().map(_TRUTH)
        center_tumor = truth.to_numpy(np.float32)
    return dataclasses.replace(
        patches,
        slides=name_arrays.to_array(rows["wsi"].tolist()),
        coordinates=np.stack(coordinates, axis=1),
        center_tumor=center_tumor,
    )


def _check_slides(path: str, slides: pandas.Series) -> None:
    for row, slide in enumerate(slides):
        if slide and not name_arrays.is_plain(slide):
            raise ValueError(
                f"{path}: row {row}: found wsi {faults.show(slide)}, expected"
                f" {name_arrays.PLAIN}. Mend the row."
            )


def _to_numbers(path: str, texts: pandas.Series) -> np.ndarray:
    """Returns whole numbers, int64 [num_patches]."""
    numbers = pandas.to_numeric(texts, errors="coerce").to_numpy(float)
    is_whole = (np.abs(numbers) <= _LARGEST) & (numbers == np.rint(numbers))
    if not is_whole.all():
        row = int(is_whole.argmin())
        raise ValueError(
            f"{path}: row {row}: found {texts.name}"
            f" {faults.show(texts.iloc[row])}, expected a whole number of"
            " pixels, at most 2^53. Mend the row or fetch the file again."
        )
    return numbers.astype(np.int64)
