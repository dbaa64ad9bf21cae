"""Tables of (id, label), (id, slide) or ids alone, ten million rows of them.

Rows become columns of NumPy. An id is a plain file name; the suffix of an image
is no part of it, and one of 40 hex digits is the same in capitals: see
`name_columns.normalize`. Rows that say the same of an id are one patch. What is
wrong with a row is a fault that names its line, and the rows of a name are left
out altogether where one of them has no usable value or two of them contradict
each other.
"""

import dataclasses
import logging
import operator
import re
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
class LabelTable:
    """Patches that can be used, in the order of their table, and the others.

    Attributes:
        names: S [num_patches], normalized ids as UTF-8, each once.
        labels: int8 [num_patches], 0 or 1; -1 if only ids were read.
        bad_names: S, sorted, each once: names of which a row cannot be used;
            none is in `names`. Their files are not files without a row.
        faults: What is wrong with rows, by line: at most 1,000 of a kind, and a
            fault without a name for each kind that has more.
    """

    names: np.ndarray
    labels: np.ndarray
    bad_names: np.ndarray
    faults: list[faults.Fault]


@dataclasses.dataclass(frozen=True)
class SlideTable:
    """The slide of each patch, in the order of their table.

    Attributes:
        names: S [num_patches], normalized ids as UTF-8, each once.
        slides: int32 [num_patches], the place of each patch's slide in
            `slide_names`.
        slide_names: S [num_slides], sorted; no slide is without a row.
        bad_names: As in `LabelTable`.
        faults: As in `LabelTable`.
    """

    names: np.ndarray
    slides: np.ndarray
    slide_names: np.ndarray
    bad_names: np.ndarray
    faults: list[faults.Fault]


@dataclasses.dataclass(frozen=True)
class _Column:
    """What stands beside the ids.

    Attributes:
        kind: What a value is called.
        headers: Names of the column, the first that is there; none for none.
        expected: What a value should be.
        parse: From a text to the value as a text, None where it is none.
        may_repeat: Whether rows that say the same again are worth no warning.
    """

    kind: str
    headers: Sequence[str]
    expected: str
    parse: Callable[[str], str | None]
    may_repeat: bool = False


def read_labels(path: str) -> LabelTable:
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
    column = _Column("label", ("label",), "0 or 1", _parse_label)
    names, values, known, *rest = _read(path, column)
    return LabelTable(names, np.array(known, np.int8)[values], *rest)


def read_names(path: str) -> LabelTable:
    """Reads the column `id` of a CSV file; otherwise as `read_labels`."""
    # Rows of ids alone say the same, however they spell one.
    names, _, _, *rest = _read(path, _Column("", (), "", lambda _: ""))
    labels = np.full(len(names), schema.UNLABELED, np.int8)
    return LabelTable(names, labels, *rest)


def read_slides(path: str) -> SlideTable:
    """Reads the columns `id` and `wsi`, else `slide`, of a CSV file.

    Several rows may say the same of a patch: what matters is that it has one
    slide. Otherwise as `read_labels`.
    """
    # The community's patch_id_wsi.csv says `wsi`.
    column = _Column(
        "slide", ("wsi", "slide"), "a plain name", _parse_slide, may_repeat=True
    )
    names, values, known, *rest = _read(path, column)
    used, slides = np.unique(values, return_inverse=True)
    slide_names = name_arrays.to_array([known[place] for place in used])
    return SlideTable(names, slides.astype(np.int32), slide_names, *rest)


def _parse_label(text: str) -> str | None:
    match = _LABEL.fullmatch(text)
    return match[1] if match else None


def _parse_slide(text: str) -> str | None:
    return None if name_arrays.find_unfit([text]) else text


def _read(
    path: str, column: _Column
) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray, list[faults.Fault]]:
    """Reads a table.

    Returns:
        Of the rows that can be used S [num_patches], their names, and int32
        [num_patches], places of their values in the next; every value; the bad
        names; and the faults.
    """
    headers = [column.headers] if column.headers else []
    table = csv_rows.read(path, ("id",), *headers)
    names, is_unfit = _read_ids(table.texts[0])
    values, known = _read_values(table.texts.iloc[:, -1], column)
    is_long = table.is_long & ~is_unfit
    is_invalid = (values == _INVALID) & ~is_unfit & ~is_long
    is_good = ~(is_unfit | is_long | is_invalid)
    rows, first = np.arange(len(names)), name_arrays.find_first(names)
    is_pair = (first != rows) & is_good & is_good[first]
    is_conflict = is_pair & (values != values[first])
    has_bad_row = np.zeros(len(names), bool)
    has_bad_row[first[~is_good | is_conflict]] = True
    is_bad = has_bad_row[first]
    is_used = (first == rows) & ~is_bad
    if not column.may_repeat:
        _warn_of_repeats(table, rows[is_pair & ~is_bad], column)
    found = {
        _UNFIT: rows[is_unfit],
        _LONG: rows[is_long],
        f"bad {column.kind}s": rows[is_invalid],
        _CONFLICTS: rows[is_conflict],
    }
    return (
        names[is_used],
        values[is_used],
        known,
        np.unique(names[is_bad & ~is_unfit]),
        _list_faults(table, column, found, first),
    )


def _read_ids(texts: pandas.Series) -> tuple[np.ndarray, np.ndarray]:
    """Returns normalized names, S, and which ids are no plain names.

    The names of these are empty.
    """
    names, is_unfit = [], np.zeros(len(texts), bool)
    # A block at a time: Python's text takes twice the memory.
    for start in range(0, len(texts), _BLOCK_ROWS):
        block = texts.iloc[start : start + _BLOCK_ROWS].tolist()
        for place in name_arrays.find_unfit(block):
            is_unfit[start + place] = True
            block[place] = ""
        names.append(name_arrays.normalize(name_arrays.to_array(block)))
    return name_arrays.join(names), is_unfit


def _read_values(
    texts: pandas.Series, column: _Column
) -> tuple[np.ndarray, list[str]]:
    """Returns the values, int32 [num_rows], and each of them once, sorted."""
    places, found = pandas.factorize(texts)
    parsed = [column.parse(text) for text in found]
    known = sorted(set(parsed) - {None})
    number = {text: place for place, text in enumerate(known)}
    numbers = [number.get(text, _INVALID) for text in parsed]
    return np.array(numbers, np.int32)[places], known


def _warn_of_repeats(
    table: csv_rows.Table, rows: np.ndarray, column: _Column
) -> None:
    """Says how many rows repeat an id, and names one."""
    if len(rows):
        line, _ = table.locate(rows[:1])[int(rows[0])]
        what = f" with the same {column.kind}" if column.kind else ""
        _logger.warning(
            "Warning: %s: found %s rows that repeat an id%s (line %s repeats %s)."
            " Each id is one patch.",
            table.path, f"{len(rows):,}", what, f"{line:,}",
            table.texts.iat[rows[0], 0],
        )  # fmt: skip


def _list_faults(
    table: csv_rows.Table,
    column: _Column,
    found: Mapping[str, np.ndarray],
    first: np.ndarray,
) -> list[faults.Fault]:
    """Returns the faults by line, then those that stand for others.

    Args:
        table: Of them.
        column: What stands beside the ids.
        found: For each kind of fault the rows that have it.
        first: For each row the first one of its id.
    """
    shown = {kind: rows[: faults.MAX_LISTED] for kind, rows in found.items()}
    places = np.concatenate([*shown.values(), first[shown[_CONFLICTS]]])
    located = table.locate(np.unique(places))
    listed, others = [], []
    for kind, rows in shown.items():
        described = (
            _describe(table, column, kind, row, first[row], located)
            for row in rows.tolist()
        )
        made = faults.list_some(kind, table.path, len(found[kind]), described)
        lines = [located[row] for row in rows.tolist()]
        listed += zip(lines, made[: len(rows)], strict=True)
        others += made[len(rows) :]
    listed.sort(key=operator.itemgetter(0))
    return [fault for _, fault in listed] + others


def _describe(
    table: csv_rows.Table,
    column: _Column,
    kind: str,
    row: int,
    first: int,
    located: Mapping[int, tuple[int, int]],
) -> tuple[str, str]:
    """Returns the name and the reason of a fault."""
    text, value = table.texts.iat[row, 0], table.texts.iat[row, -1]
    line, num_fields = located[row]
    advice = "Mend the row."
    if kind == _UNFIT:
        found, expected = f"id {faults.show(text)}", name_arrays.PLAIN
    elif kind == _LONG:
        found = f"{num_fields} fields for {text}"
        expected = f"{table.width} as in the header"
    elif kind == _CONFLICTS:
        found = (
            f"conflicting {column.kind}s for {text}: {value} here and"
            f" {table.texts.iat[first, -1]} in line {located[first][0]:,}"
        )
        expected = f"one {column.kind}"
        advice = "Find out which is right."
    else:
        found = f"{column.kind} {faults.show(value)} for {text}"
        expected = column.expected
    return faults.escape(text), (
        f"{table.path}: line {line:,}: found {found}, expected {expected}."
        f" {advice}"
    )
