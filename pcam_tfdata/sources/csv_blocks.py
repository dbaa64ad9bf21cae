"""CSV files of any length, some thousand rows at a time, with line numbers.

What cannot be read as a table at all is refused with the line where it starts;
what a row holds is for the reader of the rows to judge.
"""

import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Iterator

import numpy as np

from pcam_tfdata import files

_BLOCK_ROWS = 1 << 14
_CHUNK_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_END = re.compile("\r\n|\r|\n")
# A last line of our own: inside a quote that is still open, it reads otherwise.
_END = 'end"'


@dataclasses.dataclass(frozen=True)
class Block:
    """Rows that follow each other in a file.

    Attributes:
        lines: int64 [num_rows], the number of the line where each starts.
        rows: The fields of each row, as they are: not stripped, not counted.
    """

    lines: np.ndarray
    rows: list[list[str]]


def read_table(path: str) -> tuple[list[str], Iterator[Block]]:
    """Returns the header of a CSV file, and its rows.

    Rows of blank fields are passed over. Memory holds two blocks at a time.

    Args:
        path: UTF-8, with or without a byte order mark; lines end in LF, CR LF
            or CR; fields may be quoted, and spaces may stand before a quote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, no UTF-8 text, or a quote is never closed; the
            last two are raised by the iterator too.
    """
    if files.size(path) is None:
        raise FileNotFoundError(f"{path}: not found, expected a CSV file.")
    blocks = _iterate_blocks(path)
    first = next(blocks, None)
    if first is None:
        raise ValueError(
            f"{path}: found an empty file, expected a line with the names of"
            " the columns. Copy the file again."
        )
    rest = Block(first.lines[1:], first.rows[1:])
    return first.rows[0], itertools.chain([rest], blocks)


def _iterate_blocks(path: str) -> Iterator[Block]:
    lines = itertools.chain(_iterate_lines(path), [_END])
    reader = csv.reader(lines, skipinitialspace=True)
    first_line = 1
    rows = _take(path, reader, first_line)
    while rows:
        starts = _number_lines(rows, first_line, reader.line_num)
        first_line = reader.line_num + 1
        following = _take(path, reader, first_line)
        if not following and rows.pop() != [_END]:
            raise ValueError(
                f"{path}: line {starts[-1]:,}: found a quote that is never"
                " closed, expected a second one. Mend the file."
            )
        block = _drop_blank(Block(starts[: len(rows)], rows))
        if block.rows:
            yield block
        rows = following


def _take(path: str, reader: "csv.Reader", first_line: int) -> list[list[str]]:
    """Returns the next rows, none at the end."""
    rows: list[list[str]] = []
    try:
        for row in itertools.islice(reader, _BLOCK_ROWS):
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


def _drop_blank(block: Block) -> Block:
    if all(row and row[0].strip() for row in block.rows):
        return block
    kept = [any(map(str.strip, row)) for row in block.rows]
    rows = list(itertools.compress(block.rows, kept))
    return Block(block.lines[np.array(kept, bool)], rows)


def _iterate_lines(path: str) -> Iterator[str]:
    """Yields the lines of a file with their ends."""
    with files.open_file(path, "rb") as file:
        held, number = file.read(len(_BYTE_ORDER_MARK)), 1
        if held == _BYTE_ORDER_MARK:
            held = b""
        while chunk := file.read(_CHUNK_BYTES):
            held += chunk
            # A CR at the very end may be half of a CR LF.
            end = held.rfind(b"\n") + 1 or held.rfind(b"\r", 0, -1) + 1
            if not end and len(held) > _CHUNK_BYTES:
                raise ValueError(
                    f"{path}: line {number:,}: found more than"
                    f" {_CHUNK_BYTES:,} bytes without an end of line, expected"
                    " a CSV file. Check which file it is."
                )
            lines = _decode(path, held[:end], number)
            yield from lines
            number += len(lines)
            held = held[end:]
        yield from _decode(path, held, number)


def _decode(path: str, data: bytes, first_line: int) -> list[str]:
    try:
        return list(io.StringIO(data.decode(), newline=""))
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line = first_line + len(_LINE_END.findall(before))
        raise ValueError(
            f"{path}: line {line:,}: found bytes that are no UTF-8 text"
            f" ({data[error.start : error.start + 4]!r}), expected a CSV file."
            " Save it again as UTF-8."
        ) from error
