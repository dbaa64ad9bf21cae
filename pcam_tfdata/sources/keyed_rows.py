"""Rows of a table under an id each: names and one value as columns, and faults.

A row is bad if its id is no plain name, if it has more fields than the header,
or if its value is none. The rows of a name are left out altogether where one of
them is bad or two of them contradict each other: neither can be trusted.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from pcam_tfdata import name_columns
from pcam_tfdata.sources import (
    csv_blocks,
    fault_log,
    plain_lines,
    plain_names,
)

INVALID = -2


@dataclasses.dataclass(frozen=True)
class Column:
    """What stands beside the ids.

    Attributes:
        kind: What a value is called.
        headers: Names of the column, the first that is there; none for none.
        expected: What a value should be.
        parse: From texts to values, int [num_rows], some of them `INVALID`.
        show: From a value to a text.
        may_repeat: Whether a row may say the same again.
    """

    kind: str
    headers: Sequence[str]
    expected: str
    parse: Callable[[Sequence[str]], np.ndarray]
    show: Callable[[int], str]
    may_repeat: bool = False


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows in the order of their table: names S, values int, lines int64."""

    names: np.ndarray
    values: np.ndarray
    lines: np.ndarray

    def select(self, kept: np.ndarray) -> "Rows":
        """Returns some of the rows; without a copy if it is all of them."""
        if kept.all():
            return self
        return Rows(self.names[kept], self.values[kept], self.lines[kept])


def read(
    path: str, column: Column
) -> tuple[Rows, np.ndarray, fault_log.FaultLog]:
    """Reads a table.

    Args:
        path: See `csv_blocks.read_table`.
        column: What to read beside the ids.

    Returns:
        The rows that can be used, each name once; the bad names, S, sorted; and
        the faults, by line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table, or a column is missing.
    """
    header, pieces = csv_blocks.read_table(path)
    places = _find_columns(path, header, column)
    log = fault_log.FaultLog(path)
    columns = ([], [], [])
    for piece in pieces:
        found = _read_plain(piece, len(header), places, column)
        if found is None:
            block = _Block(path, piece.read(), len(header), places, column)
            block.log_faults(log)
            found = block.select()
        for blocks, part in zip(columns, found, strict=True):
            blocks.append(part)
    rows = Rows(
        name_columns.join(columns[0]), *map(np.concatenate, columns[1:])
    )
    del columns
    kept, bad_names = _settle(path, rows, column, log)
    return kept, bad_names, log


def _find_columns(
    path: str, header: Sequence[str], column: Column
) -> tuple[int, int]:
    """Returns the places of the id and of the value, or twice of the id."""
    found = [name.strip().casefold() for name in header]
    wanted = ["id"]
    if column.headers:
        there = [name for name in column.headers if name in found]
        wanted.append([*there, column.headers[-1]][0])
    for name in wanted:
        if found.count(name) != 1:
            raise ValueError(
                f"{path}: found columns {plain_names.show(','.join(header))},"
                f" expected {name!r} among them, once. Mend the first line."
            )
    return found.index(wanted[0]), found.index(wanted[-1])


def _read_plain(
    piece: csv_blocks.Piece,
    width: int,
    places: tuple[int, int],
    column: Column,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Returns names, values and lines of plain, good rows; else None."""
    if piece.data is None:
        return None
    fields = plain_lines.split(piece.data, width, places)
    if fields is None or np.isin(fields[0], (b".", b"..")).any():
        return None
    ids, texts = fields
    texts, place = np.unique(texts, return_inverse=True)
    values = column.parse(name_columns.to_text(texts))[place]
    if (values == INVALID).any():
        return None
    lines = np.arange(piece.first_line, piece.first_line + len(ids))
    return name_columns.lower_hashes(ids), values, lines


class _Block:
    """Rows of a block: their fields, and which of them are bad."""

    def __init__(
        self,
        path: str,
        block: csv_blocks.Block,
        width: int,
        places: tuple[int, int],
        column: Column,
    ) -> None:
        self._path, self._width, self._column = path, width, column
        self._lines = block.lines
        self._rows = block.rows
        rows, surplus = _align(block.rows, width)
        fields = list(zip(*rows, strict=True)) or [()] * width
        self._ids, self._texts = (
            [text.strip() for text in fields[place]] for place in places
        )
        values = column.parse(self._texts)
        self._is_unfit = _mask(plain_names.find_unfit(self._ids), len(rows))
        self._is_long = _mask(surplus, len(rows)) & ~self._is_unfit
        told = self._is_unfit | self._is_long
        self._is_invalid = (values == INVALID) & ~told
        self._values = np.where(self._is_long, INVALID, values)

    def log_faults(self, log: fault_log.FaultLog) -> None:
        """Adds what is wrong with the rows: one fault a row."""
        for kind, is_bad, problem in (
            ("ids that are no plain names", self._is_unfit, self._unfit),
            ("rows of too many fields", self._is_long, self._long),
            (f"bad {self._column.kind}s", self._is_invalid, self._invalid),
        ):
            rows = np.flatnonzero(is_bad)
            describe = self._describer(rows, problem)
            log.add_all(kind, self._lines[rows], describe)

    def select(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns names, values and lines of the rows with a plain id."""
        ids, kept = self._ids, ~self._is_unfit
        if not kept.all():
            ids = [ids[row] for row in np.flatnonzero(kept)]
        found = name_columns.lower_hashes(name_columns.to_array(ids))
        return found, self._values[kept], self._lines[kept]

    def _describer(
        self, rows: np.ndarray, problem: Callable[[int], str]
    ) -> Callable[[int], tuple[str, str]]:
        def describe(number: int) -> tuple[str, str]:
            row = rows[number]
            where = _where(self._path, self._lines[row])
            name = plain_names.escape(self._ids[row])
            return name, f"{where}: {problem(row)} Mend the row."

        return describe

    def _unfit(self, row: int) -> str:
        return (
            f"found id {plain_names.show(self._ids[row])}, expected"
            f" {plain_names.EXPECTED}."
        )

    def _long(self, row: int) -> str:
        return (
            f"found {len(self._rows[row])} fields for {self._ids[row]},"
            f" expected {self._width} as in the header."
        )

    def _invalid(self, row: int) -> str:
        return (
            f"found {self._column.kind} {plain_names.show(self._texts[row])} for"
            f" {self._ids[row]}, expected {self._column.expected}."
        )


def _align(
    rows: list[list[str]], width: int
) -> tuple[list[list[str]], list[int]]:
    """Returns rows of one width, and which of them have text beyond it.

    What a short row lacks is blank.
    """
    if set(map(len, rows)) == {width}:
        return rows, []
    surplus = [
        place
        for place, row in enumerate(rows)
        if any(map(str.strip, row[width:]))
    ]
    blank = [""] * width
    return [[*row, *blank][:width] for row in rows], surplus


def _mask(places: Sequence[int], length: int) -> np.ndarray:
    mask = np.zeros(length, bool)
    mask[places] = True
    return mask


def _where(path: str, line: int) -> str:
    return f"{path}: line {line:,}"


def _settle(
    path: str, rows: Rows, column: Column, log: fault_log.FaultLog
) -> tuple[Rows, np.ndarray]:
    """Returns the rows of good names, each once, and the bad names."""
    is_bad = rows.values == INVALID
    is_used = ~is_bad
    places = name_columns.find_repeated(rows.names)
    if len(places):
        is_start = name_columns.mark_first(rows.names[places])
        starts = np.flatnonzero(is_start)
        group = np.cumsum(is_start) - 1
        first = places[starts][group]
        is_good = ~is_start & ~is_bad[places] & ~is_bad[first]
        same = rows.values[places] == rows.values[first]
        for kind, told, problem in (
            ("repeated ids", is_good & same, _twice),
            ("conflicts", is_good & ~same, _conflict),
        ):
            if problem is _conflict or not column.may_repeat:
                pairs = np.stack([places[told], first[told]])
                _log_pairs(path, rows, column, log, kind, pairs, problem)
        clash = is_bad[places] | (is_good & ~same)
        is_bad[places] = np.logical_or.reduceat(clash, starts)[group]
        is_used[places] = is_start & ~is_bad[places]
    return rows.select(is_used), np.unique(rows.names[is_bad])


def _log_pairs(
    path: str,
    rows: Rows,
    column: Column,
    log: fault_log.FaultLog,
    kind: str,
    pairs: np.ndarray,
    problem: Callable[[Rows, Column, int, int], str],
) -> None:
    """Adds a fault for each later row of a name; pairs: int [2, num_faults]."""
    pairs = pairs[:, np.argsort(pairs[0])]

    def describe(number: int) -> tuple[str, str]:
        later, first = pairs[:, number]
        where = _where(path, rows.lines[later])
        reason = f"{where}: {problem(rows, column, later, first)}"
        return rows.names[later].decode(), reason

    log.add_all(kind, rows.lines[pairs[0]], describe)


def _twice(rows: Rows, column: Column, later: int, first: int) -> str:
    return (
        f"found id {rows.names[later].decode()} twice, expected it once"
        f" (as in line {rows.lines[first]:,}). Remove a row."
    )


def _conflict(rows: Rows, column: Column, later: int, first: int) -> str:
    kind = column.kind
    return (
        f"found conflicting {kind}s for {rows.names[later].decode()}:"
        f" {column.show(rows.values[later])} here and"
        f" {column.show(rows.values[first])} in line {rows.lines[first]:,},"
        f" expected one {kind}. Find out which is right."
    )
