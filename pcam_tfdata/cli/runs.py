"""Shows what was tried: a table of all runs in a folder.

A line for each run: how far it came, the scores of its best epoch, what `pcam
evaluate` found, speed, data and code, and the flags in which the runs differ.
eval_mark tells scores of an earlier network (stale), of other records than the
run's, and of splits that it was trained on.
"""

import shutil
import sys

from absl import app, flags

from pcam_tfdata.cli import flag_groups
from pcam_tfdata.runs import leaderboard, outputs, reading

REQUIRED_FLAGS = ("runs_dir",)

flags.DEFINE_string(
    "runs_dir", None, "Folder with the folders of runs in it, at any depth."
)
_SORT_BY = flags.DEFINE_string(
    "sort_by", reading.BEST_SCORE, "Column to sort by, largest first."
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
    output_csv = flag_groups.value("output_csv")
    if output_csv:
        outputs.check_file(output_csv, "--output_csv", suffixes=outputs.CSV)
    table = leaderboard.make_table(
        reading.read_runs(flag_groups.value("runs_dir"))
    )
    _check_columns("columns", _COLUMNS.value, table)
    _check_columns("sort_by", [_SORT_BY.value], table)
    table = leaderboard.sort_rows(
        table, _SORT_BY.value, ascending=_ASCENDING.value
    )
    if output_csv:
        leaderboard.write_csv(output_csv, table)
    _print(table)


def _check_columns(
    flag: str, names: list[str], table: leaderboard.Table
) -> None:
    for name in names:
        if name not in table.frame:
            raise app.UsageError(
                f"--{flag}: found {name!r}, expected one of"
                f" {', '.join(table.frame)}."
            )


def _print(table: leaderboard.Table) -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # Names, maybe no UTF-8.
    columns = _COLUMNS.value or list(table.shown)
    if sys.stdout.isatty() and not _COLUMNS.value:
        columns = leaderboard.fit_columns(
            table, shutil.get_terminal_size().columns
        )
    print(leaderboard.format_text(table, columns), end="")
    left_out = [name for name in table.shown if name not in columns]
    if left_out and not _COLUMNS.value:
        print(
            f"Not shown, for want of room: {', '.join(left_out)}. See --columns"
            " and --output_csv."
        )
