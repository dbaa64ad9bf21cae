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
import re
from collections.abc import Callable

import numpy as np
import pandas

from pcam_tfdata import schema
from pcam_tfdata.sources import csv_rows
from pcam_tfdata.system import faults, name_arrays

_LABEL = re.compile(r"([01])(\.0*)?")
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
        faults: What is wrong with rows, by line.
    """

    names: np.ndarray
    values: np.ndarray
    bad_names: np.ndarray
    faults: list[faults.Fault]


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
    rows = csv_rows.read(path, id=("id",), value=("label",))
    table = _select(path, rows, "label", "0 or 1", _parse_label)
    return dataclasses.replace(table, values=table.values.astype(np.int8))


def read_names(path: str) -> IdTable:
    """Reads the column `id` of a CSV file; otherwise as `read_labels`."""
    rows = csv_rows.read(path, id=("id",)).assign(value=str(schema.UNLABELED))
    table = _select(path, rows, "label", "-1", str)
    return dataclasses.replace(table, values=table.values.astype(np.int8))


def read_slides(path: str) -> tuple[IdTable, IdTable | None]:
    """Reads the columns `id` and `wsi`, else `slide`, of a CSV file.

    And `tumor_fraction`, if it is there: float32, the same ids unless there are
    faults. Otherwise as `read_labels`.
    """
    rows = csv_rows.read(
        path,
        optional=("fraction",),
        id=("id",),
        # The community's patch_id_wsi.csv says `wsi`.
        value=("wsi", "slide"),
        fraction=("tumor_fraction",),
    )
    columns = rows[["id", "value"]]
    slides = _select(path, columns, "slide", "a plain name", _parse_slide)
    if "fraction" not in rows:
        return slides, None
    rows = columns.assign(value=rows["fraction"]).drop_duplicates()
    expected = "a number from 0 to 1"
    table = _select(path, rows, "tumor fraction", expected, _parse_fraction)
    told = set(slides.faults)  # Those of ids.
    return slides, dataclasses.replace(
        table,
        values=table.values.astype(np.float32),
        faults=[fault for fault in table.faults if fault not in told],
    )


def _parse_label(text: str) -> str:
    match = _LABEL.fullmatch(text)
    return match[1] if match else ""


def _parse_slide(text: str) -> str:
    return text if name_arrays.is_plain(text) else ""


def _parse_fraction(text: str) -> str:
    try:
        return text if 0 <= float(text) <= 1 else ""
    except ValueError:
        return ""


def _select(
    path: str,
    rows: pandas.DataFrame,
    kind: str,
    expected: str,
    parse: Callable[[str], str],
) -> IdTable:
    """Parts the patches of a table from the faults; values stay bytes.

    Args:
        path: The file.
        rows: Columns `id` and `value`, by line.
        kind: What a value is called.
        expected: What a value should be.
        parse: From a text to the value; that is empty where there is none.
    """
    names = _read_names(rows["id"])
    codes, texts = rows["value"].factorize()
    values = name_arrays.to_array([*map(parse, texts)])[codes]
    first = name_arrays.find_first(names)
    is_unfit, is_invalid = names == b"", values == b""
    is_conflict = (values != values[first]) & ~is_invalid & ~is_invalid[first]
    is_bad = is_unfit | is_invalid | is_conflict
    bad_names = np.unique(names[is_bad])
    is_usable = ~np.isin(names, bad_names)
    is_first = first == np.arange(len(first))
    _warn_of_repeats(path, rows["id"][is_usable & ~is_first])
    first_rows = rows.iloc[first[is_bad]]
    bad_rows = rows[is_bad].assign(
        is_unfit=is_unfit[is_bad],
        is_invalid=is_invalid[is_bad],
        first_line=first_rows.index,
        first_value=first_rows["value"].to_numpy(),
    )
    return IdTable(
        names=names[is_usable & is_first],
        values=values[is_usable & is_first],
        bad_names=bad_names[bad_names != b""],
        faults=_list_faults(path, bad_rows, kind, expected),
    )


def _read_names(ids: pandas.Series) -> np.ndarray:
    """Returns normalized names, S; one that is no plain name is empty."""
    blocks = [np.array([], "S1")]
    # A block at a time: Python's text takes twice the memory.
    for start in range(0, len(ids), _BLOCK_ROWS):
        block = ids.iloc[start : start + _BLOCK_ROWS].tolist()
        plain = [text if name_arrays.is_plain(text) else "" for text in block]
        blocks.append(name_arrays.normalize(name_arrays.to_array(plain)))
    return np.concatenate(blocks)


def _warn_of_repeats(path: str, ids: pandas.Series) -> None:
    """Says how many rows repeat an id, and names one."""
    if len(ids):
        _logger.warning(
            "Warning: %s: found %s rows that repeat an id (line %s repeats %s)."
            " Each id is one patch.",
            path, f"{len(ids):,}", f"{ids.index[0]:,}", ids.iloc[0],
        )  # fmt: skip


def _list_faults(
    path: str, bad_rows: pandas.DataFrame, kind: str, expected: str
) -> list[faults.Fault]:
    """Returns a fault for each row; a row also has the first one of its id."""
    found = []
    for row in bad_rows.itertuples():
        line, name, value, is_unfit, is_invalid, first_line, first_value = row
        advice = "Mend the row."
        if is_unfit:
            group = "ids that are no plain names"
            problem = f"id {faults.show(name)}, expected {name_arrays.PLAIN}"
        elif is_invalid:
            group = f"bad {kind}s"
            problem = (
                f"{kind} {faults.show(value)} for {name}, expected {expected}"
            )
        else:
            group = "conflicts"
            problem = (
                f"conflicting {kind}s for {name}: {value} here and"
                f" {first_value} in line {first_line:,}, expected one"
                f" {kind}"
            )
            advice = "Find out which is right."
        reason = f"{path}: line {line:,}: found {problem}. {advice}"
        found.append(faults.Fault(faults.escape(name), reason, group))
    return found
