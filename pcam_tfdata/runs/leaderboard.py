"""A table of runs: built from what is known of them, sorted, and as text."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from pcam_tfdata.runs import reading
from pcam_tfdata.system import csv_files

Row = Mapping[str, object]

NAME, STATE, NOTE = "run", "state", "note"
# Flags that say where things are, not what a run was.
_PATHS = ("records_dir", "run_dir")
# Columns that are shown when asked for.
_DETAILS = (
    "epoch", "eval_num_patches", "eval_threshold", "starts", "devices",
    "resolved_precision",
)  # fmt: skip
# Where a table is too wide these go, in this order, after the lesser scores.
_DISPENSABLE = ("commit", "started_at", "dataset", reading.SPEED)
_KEPT_SCORES = (reading.BEST_SCORE, "eval_auc", "eval_mark")
_HASH_LETTERS, _COMMIT_LETTERS, _MINUTE_LETTERS = 8, 7, 16
_MOST_LETTERS = 40
_GAP = "  "


@dataclasses.dataclass(frozen=True)
class Table:
    """What is known of some runs.

    Attributes:
        rows: For each run its values by column: numbers or text; None or no
            entry where it has none. Flags are text.
        columns: All of them, in order.
        shown: Those to show: scores, origin, and the flags in which runs differ.
    """

    rows: Sequence[Row]
    columns: Sequence[str]
    shown: Sequence[str]


def make(found: Sequence[reading.Run]) -> Table:
    """Returns the table of some runs, in their order."""
    columns = [
        NAME,
        *_union(run.progress for run in found),
        *_union(
            [{reading.BEST_SCORE: None}, *(run.validation for run in found)]
        ),
        *_union(run.evaluated for run in found),
        *_union(run.training for run in found),
        *_union(run.origin for run in found),
    ]
    taken = {*columns, *_PATHS, NOTE}
    flags = [
        name for name in _union(run.flags for run in found) if name not in taken
    ]
    rows = [_row(run) for run in found]
    shown = [name for name in columns if _is_shown(name, rows)]
    shown += _differing(flags, [run.flags for run in found if run.flags])
    return Table(rows, [*columns, *flags, NOTE], shown)


def sort(table: Table, column: str, *, ascending: bool = False) -> Table:
    """Returns a table with its rows in order.

    Args:
        table: To sort.
        column: By its values; as numbers, if all of them are.
        ascending: Smallest first, not largest. Either way rows without a value
            come last, and equal ones in the order of their names.
    """
    rows = sorted(table.rows, key=lambda row: str(row[NAME]))
    having = [row for row in rows if _has(row, column)]
    key = _to_number if _is_numeric(rows, column) else str
    ordered = sorted(
        having, key=lambda row: key(row[column]), reverse=not ascending
    )
    lacking = [row for row in rows if not _has(row, column)]
    return dataclasses.replace(table, rows=ordered + lacking)


def write_csv(path: str, table: Table) -> None:
    """Writes all columns in full precision, whole or not at all."""
    csv_files.write_csv(
        path,
        table.columns,
        [[row.get(name) for name in table.columns] for row in table.rows],
    )


def fit(table: Table, width: int) -> list[str]:
    """Returns the columns to show in lines of `width` characters.

    The lesser scores go first, then where a run came from. The name, the state,
    the AUCs and the flags stay, even where lines are then too long.
    """
    lesser = [
        name
        for name in table.shown
        if name.startswith(("eval_", "val_"))
        and name.partition(":")[0] not in _KEPT_SCORES
    ]
    # Those of `pcam evaluate` stand behind the others: they go before them.
    dispensable = [*reversed(lesser), *_DISPENSABLE]
    kept = list(table.shown)
    widths = {name: max(map(len, _cells(table.rows, name))) for name in kept}
    for name in dispensable:
        if sum(widths[n] + len(_GAP) for n in kept) - len(_GAP) <= width:
            break
        if name in kept:
            kept.remove(name)
    return kept


def format_text(table: Table, columns: Sequence[str]) -> str:
    """Returns some columns as lines of text, numbers to the right.

    A line for each note follows, unless notes are among the columns.
    """
    cells = [_align(table.rows, name) for name in columns]
    lines = [_GAP.join(line).rstrip() for line in zip(*cells, strict=True)]
    if NOTE not in columns:
        lines += [
            _printable(f"{row[NAME]}: {row[NOTE]}.")
            for row in table.rows
            if _has(row, NOTE)
        ]
    return "\n".join(lines) + "\n"


def _union(dicts: Iterable[Mapping[str, object]]) -> list[str]:
    """Returns all keys, in the order in which they first come."""
    return list({name: None for found in dicts for name in found})


def _row(run: reading.Run) -> Row:
    # A flag that has the name of another column is not shown.
    return (
        run.flags | {NAME: run.name} | run.progress | run.validation
        | run.evaluated | run.training | run.origin
        | {NOTE: "; ".join(run.notes)}
    )  # fmt: skip


def _has(row: Row, column: str) -> bool:
    value = row.get(column)
    is_nan = isinstance(value, float) and math.isnan(value)
    return value not in (None, "") and not is_nan


def _is_shown(column: str, rows: Sequence[Row]) -> bool:
    if column in (NAME, STATE, reading.BEST_SCORE):
        return True
    if column in _DETAILS or column.startswith("train_"):
        return False
    name, colon, _ = column.partition(":")
    if colon and name not in _KEPT_SCORES:
        return False  # Of an evaluation that is not the run's own.
    return any(_has(row, column) for row in rows)


def _differing(
    names: Sequence[str], flags: Sequence[Mapping[str, str]]
) -> list[str]:
    """Returns the flags that have not one value, or are not in all runs."""
    return [
        name for name in names if len({found.get(name) for found in flags}) > 1
    ]


def _to_number(value: object) -> float | None:
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return None if math.isnan(number) else number


def _is_numeric(rows: Sequence[Row], column: str) -> bool:
    """Returns whether all values of a column are numbers, or text of them."""
    values = [row[column] for row in rows if _has(row, column)]
    return all(_to_number(value) is not None for value in values)


def _align(rows: Sequence[Row], column: str) -> list[str]:
    """Returns the cells of a column, its name first, of one width."""
    cells = _cells(rows, column)
    width = max(map(len, cells))
    if _is_numeric(rows, column):
        return [cell.rjust(width) for cell in cells]
    return [cell.ljust(width) for cell in cells]


def _cells(rows: Sequence[Row], column: str) -> list[str]:
    return [column, *(_cell(column, row.get(column)) for row in rows)]


def _cell(column: str, value: object) -> str:
    if not _has({column: value}, column):
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if column == reading.SPEED else f"{value:.4f}"
    text = _printable(str(value))
    if column == "commit":
        return ",".join(name[:_COMMIT_LETTERS] for name in text.split(","))
    if column == "started_at":
        return text[:_MINUTE_LETTERS].replace("T", " ")
    if column == "dataset":
        return text[:_HASH_LETTERS]
    if column in (NAME, NOTE) or len(text) <= _MOST_LETTERS:
        return text
    return text[: _MOST_LETTERS - 3] + "..."


def _printable(text: str) -> str:
    """Returns text of one line: a folder may have any name."""
    return "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1]
        for letter in text
    )
