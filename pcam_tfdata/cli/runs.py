"""Shows what was tried: a table of all runs in a folder.

A line for each run: how far it came, the scores of its best epoch, what `pcam
evaluate` found, speed, data and code, and the flags in which the runs differ.
eval_mark tells scores of an earlier network (stale), of other records than the
run's, and of splits that it was trained on.
"""

import shutil
import sys

from absl import app, flags

from pcam_tfdata.runs import leaderboard, outputs, reading
from pcam_tfdata.system import csv_files

REQUIRED_FLAGS = ("runs_dir",)

flags.DEFINE_string(
    "runs_dir", None, "Folder with the folders of runs in it, at any depth."
)
flags.DEFINE_string(
    "sort_by", reading.BEST_SCORE, "Column to sort by, largest first."
)
flags.DEFINE_bool("ascending", False, "Smallest first.")
flags.DEFINE_list(
    "columns", [], "Columns to print. Default: scores, origin, differing flags."
)
flags.DEFINE_string(
    "output_csv",
    None,
    "File to write, whole or not at all: all columns, numbers in full.",
)


def run() -> None:
    """Prints the table, and writes it where --output_csv says."""
    output_csv = flags.FLAGS.output_csv
    columns = flags.FLAGS.columns
    sort_by = flags.FLAGS.sort_by
    if output_csv:
        outputs.check_file(output_csv, "--output_csv", suffixes=outputs.CSV)
    table = leaderboard.make_table(reading.read_runs(flags.FLAGS.runs_dir))
    known = list(map(str, table.frame))
    for flag, names in (("columns", columns), ("sort_by", [sort_by])):
        for name in names:
            if name not in known:
                raise app.UsageError(
                    f"--{flag}: found {name!r}, expected one of"
                    f" {', '.join(known)}."
                )
    table = leaderboard.sort_rows(
        table, sort_by, ascending=flags.FLAGS.ascending
    )
    if output_csv:
        csv_files.write_frame(output_csv, table.frame)
    _print(table, columns)


def _print(table: leaderboard.Table, wanted: list[str]) -> None:
    columns = wanted or list(table.shown)
    if sys.stdout.isatty() and not wanted:
        columns = leaderboard.fit_columns(
            table, shutil.get_terminal_size().columns
        )
    text = leaderboard.format_text(table, columns)
    left_out = [name for name in table.shown if name not in columns]
    if left_out and not wanted:
        text += (
            f"Not shown, for want of room: {', '.join(left_out)}. See --columns"
            " and --output_csv.\n"
        )
    print(text, end="")
