"""Rows of CSV files as people have them: read by pandas, with line numbers.

pandas reads any sound table. The csv module, far slower, reads the header, tells
the lines of rows that are at fault, and cuts the rows of a table that has longer
ones than its header.
"""

import contextlib
import csv
import dataclasses
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas

from pcam_tfdata.system import faults, files

_LINE_END = re.compile(rb"\r\n|\r|\n")
# A last line of our own: inside a quote that is still open, it reads otherwise.
_END = 'end"'


@dataclasses.dataclass(frozen=True)
class Table:
    """Some columns of a CSV file.

    Attributes:
        path: Of the file.
        data: What it holds.
        width: How many columns its header has.
        texts: A column of str for each that was asked for, without spaces
            around it; blank rows are left out. Its index counts the rows of the
            file, the blank ones too, from 0.
        is_long: bool [num_rows]: whether a row has text beyond the header.
    """

    path: str
    data: bytes
    width: int
    texts: pandas.DataFrame
    is_long: np.ndarray

    def locate(self, places: np.ndarray) -> dict[int, tuple[int, int]]:
        """Returns the line and the number of fields of some rows of `texts`.

        Args:
            places: int [num_rows].
        """
        numbers = self.texts.index[places].tolist()
        place_of = dict(zip(numbers, places.tolist(), strict=True))
        end = max(numbers, default=-1) + 1
        rows = itertools.islice(_iterate_rows(self.path, self.data), end)
        return {
            place_of[number]: (line, len(row))
            for number, (line, row) in enumerate(rows)
            if number in place_of
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
    if files.size(path) is None:
        raise FileNotFoundError(f"{path}: not found, expected a CSV file.")
    with files.open_file(path, "rb") as file:
        data = file.read()
    place, header = _find_header(path, data)
    columns = [_find_column(path, header, names) for names in wanted]
    frame, is_long = _read_frame(path, data, len(header))
    texts = frame[columns].apply(lambda column: column.str.strip())
    texts.columns = range(len(columns))
    is_kept = is_long | _find_text(frame, texts[0] == "")
    del frame  # Each copy counts where there are ten million rows.
    rows = slice(place + 1, None)
    texts, is_long, is_kept = texts.iloc[rows], is_long[rows], is_kept[rows]
    if not is_kept.all():
        texts, is_long = texts[is_kept], is_long[is_kept]
    return Table(path, data, len(header), texts, is_long)


def _find_header(path: str, data: bytes) -> tuple[int, list[str]]:
    """Returns how many blank rows there are before the header, and it."""
    for place, (_, row) in enumerate(_iterate_rows(path, data)):
        if any(map(str.strip, row)):
            return place, row
    raise ValueError(
        f"{path}: found an empty file, expected a line with the names of the"
        " columns. Copy the file again."
    )


def _find_column(path: str, header: list[str], names: Sequence[str]) -> int:
    found = [name.strip().casefold() for name in header]
    name = next((name for name in names if name in found), names[-1])
    if found.count(name) != 1:
        raise ValueError(
            f"{path}: found columns {faults.show(','.join(header))}, expected"
            f" {name!r} among them, once. Mend the first line."
        )
    return found.index(name)


def _read_frame(
    path: str, data: bytes, width: int
) -> tuple[pandas.DataFrame, np.ndarray]:
    """Returns all rows cut to a width, and which have text beyond it."""
    frame = _parse(path, data, width)
    if frame is not None:
        return frame, np.zeros(len(frame), bool)
    rows = [row for _, row in _iterate_rows(path, data)]
    blank = [""] * width
    cut = [[*row, *blank][:width] for row in rows]
    is_long = [any(map(str.strip, row[width:])) for row in rows]
    return pandas.DataFrame(cut, dtype=str), np.array(is_long)


def _parse(path: str, data: bytes, width: int) -> pandas.DataFrame | None:
    """Returns all rows; None if one is too long or a quote is never closed."""
    if b"\0" in data:
        return None  # Some versions of pandas end a field there.
    with _open(path, data) as file, warnings.catch_warnings():
        # A blank row before the header may be longer than it: pandas then cuts
        # all rows, and only warns.
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        try:
            return pandas.read_csv(
                file,
                header=None,
                names=range(width),
                index_col=False,
                dtype=str,
                na_filter=False,
                skip_blank_lines=False,
                skipinitialspace=True,
            )
        except (pandas.errors.ParserError, pandas.errors.ParserWarning):
            return None


def _find_text(frame: pandas.DataFrame, may_lack: pandas.Series) -> np.ndarray:
    """Returns which rows hold more than spaces, if only some may not."""
    has_text = np.ones(len(frame), bool)
    rows = frame[may_lack].itertuples(index=False)
    has_text[may_lack] = [any(map(str.strip, row)) for row in rows]
    return has_text


def _iterate_rows(path: str, data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yields each row, and the number of the line where it starts."""
    line, before = 1, None
    with _open(path, data) as file:
        lines = itertools.chain(file, [_END])
        reader = csv.reader(lines, skipinitialspace=True)
        try:
            for row in reader:
                if before is not None:
                    yield before
                before = line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{path}: line {line:,}: found text that is no CSV ({error}),"
                " expected short fields; is a quote never closed? Mend the file."
            ) from error
    start, row = before
    if row != [_END]:
        raise ValueError(
            f"{path}: line {start:,}: found a quote that is never closed,"
            " expected a second one. Mend the file."
        )


@contextlib.contextmanager
def _open(path: str, data: bytes) -> Iterator[io.TextIOWrapper]:
    """Opens the text of a table, with each end of a line as LF."""
    try:
        with io.TextIOWrapper(io.BytesIO(data), "utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        start = _find_undecodable(data)
        line = 1 + len(_LINE_END.findall(data[:start]))
        raise ValueError(
            f"{path}: line {line:,}: found bytes that are no UTF-8 text"
            f" ({data[start : start + 4]!r}), expected a CSV file. Save it again"
            " as UTF-8."
        ) from error


def _find_undecodable(data: bytes) -> int:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0
