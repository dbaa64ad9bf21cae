"""CSV files, read whole or row by row, and written whole."""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence

from pcam_tfdata.system import files


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
    return list(iterate_csv(path, columns))


def iterate_csv(path: str, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the rows that `read_csv` returns; memory holds one at a time."""
    with _open_csv(path) as reader:
        header = _header(reader)
        places = [_place(path, header, column) for column in columns]
        try:
            for row in reader:
                if row:
                    yield tuple(row[place].strip() for place in places)
        except IndexError as error:
            raise ValueError(
                f"{path}: found fewer columns in line {reader.line_num} than"
                f" in the header ({len(header)}). Mend the file."
            ) from error


def read_header(path: str) -> list[str]:
    """Returns the column names of a CSV file; errors as in `read_csv`."""
    with _open_csv(path) as reader:
        return _header(reader)


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
def _open_csv(path: str) -> Iterator["csv.Reader"]:
    if files.size(path) is None:
        raise FileNotFoundError(f"{path}: not found, expected a CSV file.")
    try:
        with files.open_file(path, newline="", encoding="utf-8-sig") as file:
            yield csv.reader(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path}: found bytes that are no CSV text ({error})."
        ) from error


def _header(reader: "csv.Reader") -> list[str]:
    return [name.strip() for name in next(reader, [])]


def _place(path: str, header: list[str], column: str) -> int:
    if column not in header:
        raise ValueError(
            f"{path}: found columns {','.join(header)!r}, expected {column!r}"
            " among them."
        )
    return header.index(column)
