"""Columns of CSV files as people have them: read by pandas, with line numbers.

pandas reads any sound table. The csv module, far slower, reads the header,
tells the lines of rows that are at fault, and cuts the rows of a table that has
longer ones than its header.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Sequence

import numpy as np
import pandas

from pcam_tfdata.system import csv_files, faults

_IS_LONG = "is long"  # A column beside those of a file, which have numbers.


@dataclasses.dataclass(frozen=True)
class Table:
    """Some columns of a CSV file.

    Attributes:
        path: The file.
        width: How many columns its header has.
        texts: A column of str for each that was asked for, without spaces
            around it; blank rows are left out. Its index counts the rows of the
            file, the blank ones too, from 0.
        is_long: bool [num_rows]: whether a row has text beyond the header.
    """

    path: str
    width: int
    texts: pandas.DataFrame
    is_long: np.ndarray

    def locate(self, rows: np.ndarray) -> dict[int, tuple[int, int]]:
        """Returns the line and the number of fields of some rows of `texts`.

        Args:
            rows: int [num_rows].
        """
        numbers = self.texts.index[rows].tolist()
        row_of = dict(zip(numbers, rows.tolist(), strict=True))
        end = max(numbers, default=-1) + 1
        lines = itertools.islice(csv_files.iterate_rows(self.path), end)
        return {
            row_of[number]: (line, len(fields))
            for number, (line, fields) in enumerate(lines)
            if number in row_of
        }


def read(path: str, *wanted: Sequence[str]) -> Table:
    """Reads columns of a CSV file.

    Args:
        path: UTF-8, with or without a byte order mark; lines end in LF, CR LF
            or CR; fields may be quoted, and spaces may stand around them.
        wanted: For each column the names that it may have, in lower case. The
            header may write them in any case; the first that is there is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, no UTF-8 text or no CSV, or a column is not
            there once.
    """
    number, header = _find_header(path)
    columns = [_find_column(path, header, names) for names in wanted]
    frame = _parse(path, len(header))
    is_long = np.zeros(len(frame), bool)
    if _IS_LONG in frame:
        is_long = frame.pop(_IS_LONG).to_numpy(bool)
    texts = frame[columns].apply(lambda column: column.str.strip())
    texts.columns = range(len(columns))
    is_kept = is_long | (texts[0] != "").to_numpy(bool)
    others = frame[~is_kept].apply(lambda column: column.str.strip() != "")
    is_kept[~is_kept] = others.any(axis=1)
    is_kept[: number + 1] = False
    del frame, others  # Each copy counts where there are ten million rows.
    return Table(path, len(header), texts[is_kept], is_long[is_kept])


def _find_header(path: str) -> tuple[int, list[str]]:
    """Returns how many blank rows there are before the header, and it."""
    for number, (_, row) in enumerate(csv_files.iterate_rows(path)):
        if any(map(str.strip, row)):
            return number, row
    raise ValueError(
        f"{path}: found an empty file, expected a line with the names of the"
        " columns. Copy the file again."
    )


def _find_column(path: str, header: list[str], names: Sequence[str]) -> int:
    present = [name.strip().casefold() for name in header]
    name = next((name for name in names if name in present), names[-1])
    if present.count(name) != 1:
        raise ValueError(
            f"{path}: found columns {faults.show(','.join(header))}, expected"
            f" {name!r} among them, once. Mend the first line."
        )
    return present.index(name)


def _parse(path: str, width: int) -> pandas.DataFrame:
    """Returns all rows cut to a width, and which were long where any was."""
    with csv_files.open_text(path) as file, warnings.catch_warnings():
        # A blank row before the header may be longer than it: pandas then cuts
        # all rows, and only warns.
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        try:
            return pandas.read_csv(
                file,
                header=None,
                names=list(range(width)),
                index_col=False,
                dtype=str,
                na_filter=False,
                skip_blank_lines=False,
                skipinitialspace=True,
            )
        except (pandas.errors.ParserError, pandas.errors.ParserWarning):
            pass  # A row is too long, or a quote is never closed.
    blank = [""] * width
    rows = [row for _, row in csv_files.iterate_rows(path)]
    frame = pandas.DataFrame(
        [[*row, *blank][:width] for row in rows], dtype=str
    )
    frame[_IS_LONG] = [any(map(str.strip, row[width:])) for row in rows]
    return frame
