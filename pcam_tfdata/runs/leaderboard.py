"""A table of runs: built from what is known of them, sorted, and as text."""

from collections.abc import Sequence
from typing import Any

import pandas

from pcam_tfdata.runs import reading
from pcam_tfdata.system import faults

NAME, NOTE = "run", "note"
# Columns that are shown where a run has a value, also of each other evaluation.
_SHOWN = (
    NAME, "state", "best_epoch", "dead_epochs", reading.BEST_SCORE, "eval_auc",
    "eval_mark", reading.SPEED,
)  # fmt: skip
# Columns that are shown where runs differ in them, as their flags are.
_ORIGINS = ("dataset", "commit", "devices", "resolved_precision")
# Flags that say where things are, not what a run was.
_PATHS = ("records_dir", "run_dir")
_MOST_LETTERS = 40


def make_table(
    runs: Sequence[reading.Run],
) -> tuple[pandas.DataFrame, list[str]]:
    """Returns what is known of some runs, and which columns to show.

    Returns:
        A row for each run, in their order: numbers or text, None or NaN where
        it has no value; flags are text, and notes stand last. And the names of
        columns: scores, and the origin and flags in which runs differ.
    """
    known = pandas.DataFrame([run.columns for run in runs], dtype=object)
    columns = list(map(str, known))
    flags = pandas.DataFrame([run.flags for run in runs], dtype=object)
    # A flag that has the name of another column is not shown.
    flags = flags.drop(columns=[*columns, *_PATHS, NOTE], errors="ignore")
    frame = pandas.concat([known, flags], axis=1)
    frame[NOTE] = ["; ".join(run.notes) for run in runs]
    shown = [
        name
        for score in _SHOWN
        for name in columns
        if name.partition(":")[0] == score and _has(known[name]).any()
    ]
    shown += [n for n in _ORIGINS if n in known and known[n].nunique() > 1]
    given = flags[[bool(run.flags) for run in runs]]
    differing = given.columns[given.nunique(dropna=False) > 1]
    return frame, [*shown, *map(str, differing)]


def sort_rows(
    frame: pandas.DataFrame, column: str, *, ascending: bool = False
) -> pandas.DataFrame:
    """Returns a table with its rows in order.

    Args:
        frame: Of `make_table`.
        column: By its values; as numbers, if all of them are.
        ascending: Smallest first, not largest. Either way rows without a value
            come last, and equal ones in the order of their names.
    """
    frame = frame.sort_values(NAME)
    values = frame[column].where(_has(frame[column]))
    numbers = pandas.to_numeric(values, errors="coerce")
    keys = numbers if numbers.count() == values.count() else values
    keys = keys.sort_values(ascending=ascending, kind="stable")
    return frame.loc[keys.index]


def format_text(frame: pandas.DataFrame, columns: Sequence[str]) -> str:
    """Returns some columns as lines of text.

    A line for each note follows, unless notes are among the columns.
    """
    cells = [
        [name, *(_format_cell(name, value) for value in frame[name])]
        for name in columns
    ]
    widths = [max(map(len, column)) for column in cells]
    lines = [
        "  ".join(map(str.ljust, row, widths)).rstrip()
        for row in zip(*cells, strict=True)
    ]
    lines += [
        faults.escape(f"{name}: {note}.")
        for name, note in zip(frame[NAME], frame[NOTE], strict=True)
        if note and NOTE not in columns
    ]
    return "\n".join(lines) + "\n"


def _has(column: pandas.Series) -> pandas.Series:
    """Returns which rows have a value."""
    return column.notna() & (column != "")


def _format_cell(column: str, value: Any) -> str:
    if pandas.isna(value) or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}" if column == reading.SPEED else f"{value:.4f}"
    text = faults.escape(str(value))
    if column in (NAME, NOTE) or len(text) <= _MOST_LETTERS:
        return text
    return text[: _MOST_LETTERS - 3] + "..."
