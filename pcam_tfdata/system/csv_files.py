"""CSV files, read whole or row by row, and written whole."""

import contextlib
import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from pcam_tfdata.system import files

# A last line of our own: inside a quote that is still open, it reads otherwise.
_END = 'end"'


def read_csv(path: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the rows of a CSV file with a header line.

    Args:
        path: UTF-8, with or without a byte order mark.
        columns: The ones wanted; others are passed over.

    Returns:
        A tuple for each row, in the order of `columns`; values stripped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a row is short, or it is no text.
    """
    lines = iterate_rows(path)
    _, names = next(lines, (1, []))
    header = [name.strip() for name in names]
    for column in columns:
        if column not in header:
            raise ValueError(
                f"{path}: found columns {','.join(header)!r}, expected"
                f" {column!r} among them."
            )
    indices = [header.index(column) for column in columns]
    rows = []
    for line, row in lines:
        if row and len(row) <= max(indices):
            raise ValueError(
                f"{path}: found fewer columns in line {line} than in the header"
                f" ({len(header)}). Mend the file."
            )
        if row:
            rows.append(tuple(row[index].strip() for index in indices))
    return rows


def read_header(path: str) -> list[str]:
    """Returns the column names of a CSV file; errors as in `read_csv`."""
    for _, row in iterate_rows(path):
        return [name.strip() for name in row]
    return []


def iterate_rows(path: str) -> Iterator[tuple[int, list[str]]]:
    """Yields each row, and the number of the line where it starts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no UTF-8 text, or no CSV; its line is told.
    """
    line, last = 1, None
    with open_text(path, newline="") as file:
        rows = csv.reader(itertools.chain(file, [_END]), skipinitialspace=True)
        try:
            for row in rows:
                if last:
                    yield last
                last = line, row
                line = rows.line_num + 1
        except csv.Error as error:
            raise ValueError(
                f"{path}: line {line:,}: found text that is no CSV ({error}),"
                " expected short fields; is a quote never closed? Mend the"
                " file."
            ) from error
    if last and last[1] != [_END]:
        raise ValueError(
            f"{path}: line {last[0]:,}: found a quote that is never closed,"
            " expected a second one. Mend the file."
        )


def write_csv(
    path: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Writes a CSV file that appears whole or not at all."""
    with files.open_whole(
        path,
        newline="",
        errors="backslashreplace",  # File names need not be UTF-8.
    ) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


@contextlib.contextmanager
def open_text(path: str, newline: str | None = None) -> Iterator[IO[str]]:
    """Opens a text file, UTF-8 with or without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what is read is no UTF-8; its line is told.
    """
    if files.size(path) is None:
        raise FileNotFoundError(f"{path}: not found, expected a CSV file.")
    try:
        with files.open_file(
            path, newline=newline, encoding="utf-8-sig"
        ) as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {_find_undecodable(path)}") from error


def _find_undecodable(path: str) -> str:
    start = 0
    with files.open_file(path, "rb") as file:
        data = file.read()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        start = error.start
    line = len(data[: start + 1].splitlines())
    return (
        f"line {line:,}: found bytes that are no UTF-8 text"
        f" ({data[start : start + 4]!r}), expected a CSV file. Save it again as"
        " UTF-8."
    )
