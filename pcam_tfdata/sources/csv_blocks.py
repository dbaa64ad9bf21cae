"""CSV files of any length, a piece at a time, with line numbers.

What cannot be read as a table at all is refused with the line where it starts;
what a row holds is for the reader of the rows to judge.
"""

import csv
import dataclasses
import functools
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from pcam_tfdata import files

_CHUNK_BYTES = 1 << 20
_MAX_LINE_BYTES = 1 << 20
_BLOCK_ROWS = 1 << 14
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile("\r\n|\r|\n")
_LINE_END_BYTES = re.compile(b"\r\n|\r|\n")
# A last line of our own: inside a quote that is still open, it reads otherwise.
_END = 'end"'


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows that follow each other in a file.

    Attributes:
        lines: int64 [num_rows], the number of the line where each starts.
        rows: The fields of each row, as they are: not stripped, not counted.
            Rows of blank fields are passed over.
    """

    lines: np.ndarray
    rows: list[list[str]]


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of a table, at will as bytes or as rows.

    Attributes:
        first_line: Its number.
        data: Whole lines without any quote, so that commas and ends of lines
            are what they seem; None where that is not so.
        read: Returns the rows.
    """

    first_line: int
    data: bytes | None
    read: Callable[[], Block]


def read_table(path: str) -> tuple[list[str], Iterator[Piece]]:
    """Returns the header of a CSV file, and its rows in pieces.

    Args:
        path: UTF-8, with or without a byte order mark; lines end in LF, CR LF
            or CR; fields may be quoted, and spaces may stand before a quote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, no UTF-8 text, or a quote is never closed; the
            last two are raised by the iterator and by `Piece.read` too.
    """
    if files.size(path) is None:
        raise FileNotFoundError(f"{path}: not found, expected a CSV file.")
    pieces = _iterate_pieces(path)
    for piece in pieces:
        block = piece.read()
        if block.rows:
            rest = Block(block.lines[1:], block.rows[1:])
            first = Piece(piece.first_line, None, lambda rest=rest: rest)
            return block.rows[0], itertools.chain([first], pieces)
    raise ValueError(
        f"{path}: found an empty file, expected a line with the names of the"
        " columns. Copy the file again."
    )


def _iterate_pieces(path: str) -> Iterator[Piece]:
    chunks = _iterate_chunks(path)
    for line, data in chunks:
        if b'"' in data:
            # It may be open at the end of the chunk: from here on, one reader.
            chunks = itertools.chain([(line, data)], chunks)
            yield from _iterate_quoted(path, line, chunks)
            return
        read = functools.partial(_read_unquoted, path, line, data)
        yield Piece(line, data, read)


def _iterate_chunks(path: str) -> Iterator[tuple[int, bytes]]:
    """Yields whole lines, some at a time, and the number of the first."""
    with files.open_file(path, "rb") as file:
        held, line = file.read(len(_BYTE_ORDER_MARK)), 1
        if held == _BYTE_ORDER_MARK:
            held = b""
        while chunk := file.read(_CHUNK_BYTES):
            held += chunk
            # A CR at the very end may be half of a CR LF.
            end = held.rfind(b"\n") + 1 or held.rfind(b"\r", 0, -1) + 1
            if not end and len(held) > _MAX_LINE_BYTES:
                raise ValueError(
                    f"{path}: line {line:,}: found more than"
                    f" {_MAX_LINE_BYTES:,} bytes without an end of line,"
                    " expected a CSV file. Check which file it is."
                )
            if end:
                yield line, held[:end]
            line += _count_ends(held[:end])
            held = held[end:]
        if held:
            yield line, held


def _count_ends(data: bytes) -> int:
    if b"\r" not in data:
        return data.count(b"\n")
    return len(_LINE_END_BYTES.findall(data))


def _decode(path: str, first_line: int, data: bytes) -> list[str]:
    """Returns the lines of a chunk with their ends."""
    try:
        return list(io.StringIO(data.decode(), newline=""))
    except UnicodeDecodeError as error:
        line = first_line + _count_ends(data[: error.start])
        raise ValueError(
            f"{path}: line {line:,}: found bytes that are no UTF-8 text"
            f" ({data[error.start : error.start + 4]!r}), expected a CSV file."
            " Save it again as UTF-8."
        ) from error


def _read_unquoted(path: str, first_line: int, data: bytes) -> Block:
    lines = _decode(path, first_line, data)
    reader = csv.reader(lines, skipinitialspace=True)
    rows = _take(path, reader, first_line, len(lines))
    return _drop_blank(np.arange(first_line, first_line + len(rows)), rows)


def _iterate_quoted(
    path: str, first_line: int, chunks: Iterable[tuple[int, bytes]]
) -> Iterator[Piece]:
    decoded = (_decode(path, line, data) for line, data in chunks)
    lines = itertools.chain(itertools.chain.from_iterable(decoded), [_END])
    reader = csv.reader(lines, skipinitialspace=True)
    before = first_line - 1
    rows = _take(path, reader, first_line, _BLOCK_ROWS)
    while rows:
        starts = _number_lines(rows, first_line, before + reader.line_num)
        first_line = before + reader.line_num + 1
        following = _take(path, reader, first_line, _BLOCK_ROWS)
        if not following and rows.pop() != [_END]:
            raise ValueError(
                f"{path}: line {starts[-1]:,}: found a quote that is never"
                " closed, expected a second one. Mend the file."
            )
        block = _drop_blank(starts[: len(rows)], rows)
        yield Piece(int(starts[0]), None, lambda block=block: block)
        rows = following


def _take(
    path: str, reader: "csv.Reader", first_line: int, num_rows: int
) -> list[list[str]]:
    """Returns the next rows, none at the end."""
    rows: list[list[str]] = []
    try:
        for row in itertools.islice(reader, num_rows):
            rows.append(row)  # Not by list(): those before an error count.
    except csv.Error as error:
        line = first_line + sum(map(_count_lines, rows))
        raise ValueError(
            f"{path}: line {line:,}: found text that is no CSV ({error}),"
            " expected short fields; is a quote never closed? Mend the file."
        ) from error
    return rows


def _number_lines(rows: list[list[str]], first: int, last: int) -> np.ndarray:
    """Returns the line where each row starts, int64."""
    if last - first + 1 == len(rows):
        return np.arange(first, last + 1)
    counts = np.array([_count_lines(row) for row in rows], np.int64)
    return first + np.cumsum(counts) - counts


def _count_lines(row: list[str]) -> int:
    """Returns how many lines a row spans: quoted fields may hold some ends."""
    return 1 + sum(len(_LINE_END.findall(field)) for field in row)


def _drop_blank(lines: np.ndarray, rows: list[list[str]]) -> Block:
    if all(row and row[0].strip() for row in rows):
        return Block(lines, rows)
    kept = [any(map(str.strip, row)) for row in rows]
    return Block(lines[np.array(kept)], list(itertools.compress(rows, kept)))
