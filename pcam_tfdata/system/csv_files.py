"""CSV files, opened to read, and written whole."""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

from pcam_tfdata.system import files

if TYPE_CHECKING:  # It takes long, and most commands write no frame.
    import pandas


def read_header(path: str) -> list[str]:
    """Returns the column names of a CSV file; errors as in `open_text`."""
    with open_text(path, newline="") as file:
        return next(csv.reader(file), [])


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


@contextlib.contextmanager
def open_text(path: str, newline: str | None = None) -> Iterator[IO[str]]:
    """Opens a text file, UTF-8 with or without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what is read is no UTF-8, whose line is told, or no CSV.
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
    except csv.Error as error:
        raise ValueError(
            f"{path}: found no CSV ({error}). Write it again."
        ) from error


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
