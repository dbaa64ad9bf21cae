"""What the sidecar of a records folder says of its patches."""

import os
from collections.abc import Iterator

import numpy as np

from pcam_tfdata.records import manifest
from pcam_tfdata.system import csv_files

_COLUMNS = ("split", "id", "label", "slide", "source_name")


def path_of(records_dir: str) -> str:
    """Returns where the sidecar is."""
    return os.path.join(records_dir, manifest.SIDECAR_FILE)


def read_slides(
    records_dir: str, content: manifest.Manifest, numbers: dict[str, int]
) -> np.ndarray:
    """Returns the number of each patch's slide: int64 [num_patches].

    Args:
        records_dir: A records folder.
        content: Its manifest.
        numbers: Of the slides that are known so far; new ones are added.

    Raises:
        FileNotFoundError, ValueError: the sidecar is missing, cut, or another
            than the manifest's.
    """
    path = path_of(records_dir)
    slides = np.fromiter(
        (
            numbers.setdefault(slide, len(numbers))
            for (slide,) in csv_files.iterate_csv(path, ("slide",))
        ),
        np.int64,
    )
    _check(records_dir, len(slides), content)
    return slides


def read_rows(
    records_dir: str, rows: set[int]
) -> Iterator[tuple[int, dict[str, object]]]:
    """Yields some rows: the number, and what `table.locate` says of it."""
    if not rows:
        return
    lines = csv_files.iterate_csv(path_of(records_dir), _COLUMNS)
    for row, values in enumerate(lines):
        if row in rows:
            found = dict(zip(_COLUMNS, values, strict=True))
            yield (
                row,
                {
                    "records_dir": records_dir,
                    "split": found["split"],
                    "row": row,
                    "id": found["id"],
                    "label": int(found["label"]),
                    "slide": found["slide"],
                    "source_name": found["source_name"],
                },
            )


def _check(records_dir: str, num_rows: int, content: manifest.Manifest) -> None:
    path = path_of(records_dir)
    num_records = sum(split.num_records for split in content.splits)
    if num_rows != num_records:
        raise ValueError(
            f"{path}: found {num_rows:,} rows, expected {num_records:,}. Run"
            " pcam verify."
        )
    manifest.check_sidecar(records_dir)
