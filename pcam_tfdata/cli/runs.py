"""Shows what was tried: a table of all runs in a folder.

A line for each run: how far it came, the scores of its best epoch, what `pcam
evaluate` found, speed, and the flags, data and code in which the runs differ.
eval_mark tells scores of an earlier network (stale), of other records than the
run's, and of splits that it was trained on.
"""

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
    "columns", [], "Columns to print. Default: AUCs, and in what runs differ."
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
    frame, shown = leaderboard.make_table(
        reading.read_runs(flags.FLAGS.runs_dir)
    )
    for flag, names in (("columns", columns), ("sort_by", [sort_by])):
        for name in names:
            if name not in frame:
                raise app.UsageError(
                    f"--{flag}: found {name!r}, expected one of"
                    f" {', '.join(map(str, frame))}."
                )
    frame = leaderboard.sort_rows(
        frame, sort_by, ascending=flags.FLAGS.ascending
    )
    if output_csv:
        csv_files.write_frame(output_csv, frame)
    print(leaderboard.format_text(frame, columns or shown), end="")
