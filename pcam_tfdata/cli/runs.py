"""Shows what was tried: a table of all runs in a folder.

A line for each run: how far it came, the scores of its best epoch, what `pcam
evaluate` found, speed, data and code, and the flags in which the runs differ.
eval_mark tells scores of an earlier network (stale), of other records than the
run's, and of splits that it was trained on.
"""

import shutil
import sys

from absl import app, flags

from pcam_tfdata import outputs, run_table, runs
from pcam_tfdata.cli import options

REQUIRED_FLAGS = ("runs_dir",)

flags.DEFINE_string(
    "runs_dir", None, "Folder with the folders of runs in it, at any depth."
)
_SORT_BY = flags.DEFINE_string(
    "sort_by", runs.BEST_SCORE, "Column to sort by, largest first."
)
_ASCENDING = flags.DEFINE_bool("ascending", False, "Smallest first.")
_COLUMNS = flags.DEFINE_list(
    "columns", [], "Columns to print. Default: scores, origin, differing flags."
)
flags.DEFINE_string(
    "output_csv",
    None,
    "File to write, whole or not at all: all columns, numbers in full.",
)


def run() -> None:
    """Prints the table, and writes it where --output_csv says."""
    output_csv = options.value("output_csv")
    if output_csv:
        outputs.check_file(output_csv, "--output_csv", suffixes=outputs.CSV)
    table = run_table.make(runs.read_runs(options.value("runs_dir")))
    _check_columns("columns", _COLUMNS.value, table)
    _check_columns("sort_by", [_SORT_BY.value], table)
    table = run_table.sort(table, _SORT_BY.value, ascending=_ASCENDING.value)
    if output_csv:
        run_table.write_csv(output_csv, table)
    _print(table)


def _check_columns(flag: str, names: list[str], table: run_table.Table) -> None:
    for name in names:
        if name not in table.columns:
            raise app.UsageError(
                f"--{flag}: found {name!r}, expected one of"
                f" {', '.join(table.columns)}."
            )


def _print(table: run_table.Table) -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # Names, maybe no UTF-8.
    columns = _COLUMNS.value or list(table.shown)
    if sys.stdout.isatty() and not _COLUMNS.value:
        columns = run_table.fit(table, shutil.get_terminal_size().columns)
    print(run_table.format_text(table, columns), end="")
    left_out = [name for name in table.shown if name not in columns]
    if left_out and not _COLUMNS.value:
        print(
            f"Not shown, for want of room: {', '.join(left_out)}. See --columns"
            " and --output_csv."
        )
