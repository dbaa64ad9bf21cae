"""CSV files, written whole."""

import contextlib
import csv
from collections.abc import Iterable, Sequence
from typing import IO, TYPE_CHECKING

from pcam_tfdata.system import files

if TYPE_CHECKING:  # It takes long, and most commands write no frame.
    import pandas


def write_csv(
    path: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Writes a CSV file that appears whole or not at all."""
    with _open_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def write_frame(path: str, table: "pandas.DataFrame") -> None:
    """Writes all columns in full precision, whole or not at all."""
    with _open_whole(path) as file:
        table.to_csv(file, index=False, lineterminator="\n")


def _open_whole(path: str) -> contextlib.AbstractContextManager[IO[str]]:
    # File names need not be UTF-8.
    return files.open_whole(path, newline="", errors="backslashreplace")
