"""Tables of (id, label), (id, slide) or ids alone, ten million rows of them.

Rows become columns of NumPy. An id is a plain file name; the suffix of an image
is no part of it, and one of 40 hex digits is the same in capitals: see
`name_arrays.normalize`. Rows that say the same of an id are one patch. What is
wrong with a row is a fault that names its line, and the rows of a name are left
out altogether where one of them has no usable value or two of them contradict
each other.
"""

import dataclasses
import logging
import operator
import re
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas

from pcam_tfdata import schema
from pcam_tfdata.sources import csv_rows
from pcam_tfdata.system import faults, name_arrays

_LABEL = re.compile(r"([01])(\.0*)?")
_INVALID = -1
_UNFIT, _LONG = "ids that are no plain names", "rows of too many fields"
_CONFLICTS = "conflicts"
_BLOCK_ROWS = 1 << 18

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class IdTable:
    """Patches that can be used, in the order of their table, and the others.

    Attributes:
        names: S [num_patches], normalized ids as UTF-8, each once.
        values: What the table says of each patch: labels, int8 [num_patches], 0
            or 1, or -1 if only ids were read; or slides, S [num_patches].
        bad_names: S, sorted, each once: names of which a row cannot be used;
            none is in `names`. Their files are not files without a row.
        faults: What is wrong with rows, by line: at most 1,000 of a kind, and a
            fault without a name for each kind that has more.
    """

    names: np.ndarray
    values: np.ndarray
    bad_names: np.ndarray
    faults: list[faults.Fault]


@dataclasses.dataclass(frozen=True)
class _Column:
    """What stands beside the ids.

    Attributes:
        kind: What a value is called.
        headers: Names of the column, the first that is there; none for none.
        expected: What a value should be.
        parse: From a text to the value, None where it is none.
        may_repeat: Whether rows that say the same again are worth no warning.
    """

    kind: str
    headers: Sequence[str]
    expected: str
    parse: Callable[[str], str | None]
    may_repeat: bool = False


def read_labels(path: str) -> IdTable:
    """Reads the columns `id` and `label` of a CSV file.

    A label is 0 or 1, with a point and zeros behind it or without. A warning
    counts the rows that say the same again.

    Args:
        path: See `csv_rows.read`. Columns may have any order and case; others
            are passed over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table, or a column is missing.
    """
    table = _read(path, _Column("label", ("label",), "0 or 1", _parse_label))
    return dataclasses.replace(table, values=table.values.astype(np.int8))


def read_names(path: str) -> IdTable:
    """Reads the column `id` of a CSV file; otherwise as `read_labels`."""
    # Rows of ids alone say the same, however they spell one.
    table = _read(path, _Column("", (), "", lambda _: ""))
    labels = np.full(len(table.names), schema.UNLABELED, np.int8)
    return dataclasses.replace(table, values=labels)


def read_slides(path: str) -> IdTable:
    """Reads the columns `id` and `wsi`, else `slide`, of a CSV file.

    Several rows may say the same of a patch: what matters is that it has one
    slide. Otherwise as `read_labels`.
    """
    # The community's patch_id_wsi.csv says `wsi`.
    headers = ("wsi", "slide")
    expected = "a plain name"
    return _read(path, _Column("slide", headers, expected, _parse_slide, True))


def _parse_label(text: str) -> str | None:
    match = _LABEL.fullmatch(text)
    return match[1] if match else None


def _parse_slide(text: str) -> str | None:
    return None if name_arrays.find_unfit([text]) else text


def _read(path: str, column: _Column) -> IdTable:
    """Reads a table; its values are bytes, as `column` parses them."""
    headers = [column.headers] if column.headers else []
    table = csv_rows.read(path, ("id",), *headers)
    names, is_unfit = _read_ids(table.texts[0])
    codes, known = _read_values(table.texts.iloc[:, -1], column)
    is_long = table.is_long & ~is_unfit
    is_invalid = (codes == _INVALID) & ~is_unfit & ~is_long
    is_good = ~(is_unfit | is_long | is_invalid)
    rows, first = np.arange(len(names)), name_arrays.find_first(names)
    is_pair = (first != rows) & is_good & is_good[first]
    is_conflict = is_pair & (codes != codes[first])
    has_bad_row = np.zeros(len(names), bool)
    has_bad_row[first[~is_good | is_conflict]] = True
    is_bad = has_bad_row[first]
    is_used = (first == rows) & ~is_bad
    if not column.may_repeat:
        _warn_of_repeats(table, rows[is_pair & ~is_bad], column)
    rows_of = {
        _UNFIT: rows[is_unfit],
        _LONG: rows[is_long],
        f"bad {column.kind}s": rows[is_invalid],
        _CONFLICTS: rows[is_conflict],
    }
    return IdTable(
        names=names[is_used],
        values=known[codes[is_used]],
        bad_names=np.unique(names[is_bad & ~is_unfit]),
        faults=_list_faults(table, column, rows_of, first),
    )


def _read_ids(texts: pandas.Series) -> tuple[np.ndarray, np.ndarray]:
    """Returns normalized names, S, and which ids are no plain names.

    The names of these are empty.
    """
    blocks, is_unfit = [np.array([], "S1")], np.zeros(len(texts), bool)
    # A block at a time: Python's text takes twice the memory.
    for start in range(0, len(texts), _BLOCK_ROWS):
        block = texts.iloc[start : start + _BLOCK_ROWS].tolist()
        for row in name_arrays.find_unfit(block):
            is_unfit[start + row] = True
            block[row] = ""
        blocks.append(name_arrays.normalize(name_arrays.to_array(block)))
    return np.concatenate(blocks), is_unfit


def _read_values(
    texts: pandas.Series, column: _Column
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the value of each row as an index of values, and these, S."""
    codes, unique = pandas.factorize(texts)
    parsed = np.array([column.parse(text) for text in unique], object)
    indices, known = pandas.factorize(parsed)  # -1 for None.
    return indices[codes], name_arrays.to_array(known.tolist())


def _warn_of_repeats(
    table: csv_rows.Table, rows: np.ndarray, column: _Column
) -> None:
    """Says how many rows repeat an id, and names one."""
    if len(rows):
        line, _ = table.locate(rows[:1])[int(rows[0])]
        what = f" with the same {column.kind}" if column.kind else ""
        _logger.warning(
            "Warning: %s: found %s rows that repeat an id%s (line %s repeats"
            " %s). Each id is one patch.",
            table.path, f"{len(rows):,}", what, f"{line:,}",
            table.texts.iat[rows[0], 0],
        )  # fmt: skip


def _list_faults(
    table: csv_rows.Table,
    column: _Column,
    rows_of: Mapping[str, np.ndarray],
    first: np.ndarray,
) -> list[faults.Fault]:
    """Returns the faults by line, then those that stand for others.

    Args:
        table: The table that they are in.
        column: What stands beside the ids.
        rows_of: The rows of each kind of fault.
        first: For each row the first one of its id.
    """
    shown = {kind: rows[: faults.MAX_LISTED] for kind, rows in rows_of.items()}
    rows = np.concatenate([*shown.values(), first[shown[_CONFLICTS]]])
    located = table.locate(np.unique(rows))
    numbered: list[tuple[float, faults.Fault]] = []
    for kind, rows in shown.items():
        described = (
            _describe(table, column, kind, row, int(first[row]), located)
            for row in rows.tolist()
        )
        lines = [*(located[row][0] for row in rows.tolist()), sys.maxsize]
        listed = faults.list_some(
            kind, table.path, len(rows_of[kind]), described
        )
        numbered += zip(lines, listed, strict=False)
    return [fault for _, fault in sorted(numbered, key=operator.itemgetter(0))]


def _describe(
    table: csv_rows.Table,
    column: _Column,
    kind: str,
    row: int,
    first: int,
    located: Mapping[int, tuple[int, int]],
) -> tuple[str, str]:
    """Returns the name and the reason of a fault."""
    ids, values = table.texts[0], table.texts.iloc[:, -1]
    text, value = str(ids.iat[row]), str(values.iat[row])
    line, num_fields = located[row]
    problems = {
        _UNFIT: f"id {faults.show(text)}, expected {name_arrays.PLAIN}",
        _LONG: f"{num_fields} fields for {text}, expected {table.width} as in"
        " the header",
    }
    problem = problems.get(
        kind,
        f"{column.kind} {faults.show(value)} for {text}, expected"
        f" {column.expected}",
    )
    advice = "Mend the row."
    if kind == _CONFLICTS:
        problem = (
            f"conflicting {column.kind}s for {text}: {value} here and"
            f" {values.iat[first]} in line {located[first][0]:,}, expected one"
            f" {column.kind}"
        )
        advice = "Find out which is right."
    reason = f"{table.path}: line {line:,}: found {problem}. {advice}"
    return faults.escape(text), reason
