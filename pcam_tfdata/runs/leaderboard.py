"""A table of runs: built from what is known of them, sorted, and as text."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas

from pcam_tfdata.runs import reading
from pcam_tfdata.system import faults

NAME, STATE, NOTE = "run", "state", "note"
# The order of columns, by how their names begin; flags follow, and notes.
_ORDER = (
    NAME, STATE, "epoch", "best_epoch", "dead_epochs", reading.BEST_SCORE,
    "val_", "eval_", "train_", reading.SPEED, "dataset", "commit", "started_at",
    "starts", "devices", "resolved_precision",
)  # fmt: skip
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
        frame: A row for each run: numbers or text, None or NaN where it has no
            value. Flags are text.
        shown: Columns to show: scores, origin, and the flags in which runs
            differ.
    """

    frame: pandas.DataFrame
    shown: Sequence[str]


def make_table(runs: Sequence[reading.Run]) -> Table:
    """Returns the table of some runs, in their order."""
    rows = [{reading.BEST_SCORE: None} | run.columns for run in runs]
    known = pandas.DataFrame(rows, dtype=object)
    columns = sorted(map(str, known), key=_rank)
    known = known[columns]
    flags = pandas.DataFrame([run.flags for run in runs], dtype=object)
    # A flag that has the name of another column is not shown.
    flags = flags.drop(columns=[*columns, *_PATHS, NOTE], errors="ignore")
    given = flags[[bool(run.flags) for run in runs]]
    differing = given.columns[given.nunique(dropna=False) > 1]
    shown = [name for name in columns if _is_shown(name, known[name])]
    frame = pandas.concat([known, flags], axis=1)
    frame[NOTE] = ["; ".join(run.notes) for run in runs]
    return Table(frame, [*shown, *map(str, differing)])


def _rank(column: str) -> int:
    """Returns where a column stands; the first name that fits counts."""
    return next(i for i, name in enumerate(_ORDER) if column.startswith(name))


def sort_rows(table: Table, column: str, *, ascending: bool = False) -> Table:
    """Returns a table with its rows in order.

    Args:
        table: To sort.
        column: By its values; as numbers, if all of them are.
        ascending: Smallest first, not largest. Either way rows without a value
            come last, and equal ones in the order of their names.
    """
    frame = table.frame.sort_values(NAME)
    values, has_value = frame[column], _has(frame[column])
    as_key = float if _is_numeric(values) else str
    rows = sorted(
        frame.index[has_value],
        key=lambda row: as_key(values[row]),
        reverse=not ascending,
    )
    rows += frame.index[~has_value].tolist()
    return dataclasses.replace(table, frame=frame.loc[rows])


def fit_columns(table: Table, width: int) -> list[str]:
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
    kept = list(table.shown)
    widths = {name: len(_align(table.frame[name])[0]) for name in kept}
    # Those of `pcam evaluate` stand behind the others: they go before them.
    for name in (*reversed(lesser), *_DISPENSABLE):
        if sum(widths[n] + len(_GAP) for n in kept) - len(_GAP) <= width:
            break
        if name in kept:
            kept.remove(name)
    return kept


def format_text(table: Table, columns: Sequence[str]) -> str:
    """Returns some columns as lines of text, numbers to the right.

    A line for each note follows, unless notes are among the columns.
    """
    cells = [_align(table.frame[name]) for name in columns]
    lines = [_GAP.join(line).rstrip() for line in zip(*cells, strict=True)]
    if NOTE not in columns:
        noted = table.frame[_has(table.frame[NOTE])]
        lines += [
            faults.escape(f"{name}: {note}.")
            for name, note in zip(noted[NAME], noted[NOTE], strict=True)
        ]
    return "\n".join(lines) + "\n"


def _has(column: pandas.Series) -> pandas.Series:
    """Returns which rows have a value."""
    return column.notna() & (column != "")


def _is_shown(name: str, column: pandas.Series) -> bool:
    if name in (NAME, STATE, reading.BEST_SCORE):
        return True
    if name in _DETAILS or name.startswith("train_"):
        return False
    score, colon, _ = name.partition(":")
    if colon and score not in _KEPT_SCORES:
        return False  # Of an evaluation that is not the run's own.
    return bool(_has(column).any())


def _is_numeric(column: pandas.Series) -> bool:
    """Returns whether all values of a column are numbers, or text of them."""
    values = column[_has(column)]
    return bool(pandas.to_numeric(values, errors="coerce").notna().all())


def _align(column: pandas.Series) -> list[str]:
    """Returns the cells of a column, its name first, of one width."""
    name = str(column.name)
    shown = column.where(_has(column))
    cells = [name, *(_format_cell(name, value) for value in shown)]
    width = max(map(len, cells))
    align = str.rjust if _is_numeric(column) else str.ljust
    return [align(cell, width) for cell in cells]


def _format_cell(column: str, value: Any) -> str:
    if pandas.isna(value):
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if column == reading.SPEED else f"{value:.4f}"
    text = faults.escape(str(value))
    if column == "commit":
        return ",".join(name[:_COMMIT_LETTERS] for name in text.split(","))
    if column == "started_at":
        return text[:_MINUTE_LETTERS].replace("T", " ")
    if column == "dataset":
        return text[:_HASH_LETTERS]
    if column in (NAME, NOTE) or len(text) <= _MOST_LETTERS:
        return text
    return text[: _MOST_LETTERS - 3] + "..."
