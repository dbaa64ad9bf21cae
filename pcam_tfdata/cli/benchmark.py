"""Times conversion, input, training, its loop or prediction, beside a limit.

Every contender has a process of its own, and they take turns: a ratio is the
median over the rounds. Memory is that of the process and its children, without
the files they map, which are the page cache's.
"""

from absl import app, flags

from pcam_tfdata import choices
from pcam_tfdata.cli import flag_groups, quiet

REQUIRED_FLAGS = ("what",)

flags.DEFINE_enum("what", None, choices.BENCHMARKS, "What to time.")
flags.DEFINE_string(
    "records_dir", None, "Records folder, for all but --what=convert."
)
flags.DEFINE_string("input_dir", None, "Kaggle's folder, for --what=convert.")
flags.DEFINE_list("splits", [], "Splits to read. Default: all labelled ones.")
flags.DEFINE_enum(
    "model", "small_cnn", choices.MODELS, "Network to train or predict with."
)
flags.DEFINE_integer("batch_size", 512, "Patches a batch.", lower_bound=1)
flags.DEFINE_integer("num_repeats", 7, "Times each is timed.", lower_bound=1)
flags.DEFINE_integer(
    "min_patches",
    None,
    "Least of a repeat. Default: 10000 for --what=input.",
    lower_bound=0,
)
flags.DEFINE_float(
    "min_seconds",
    None,
    "Least of a repeat. Default: 1 for input, 5 for training, 2 for predict.",
    lower_bound=0,
)
flags.DEFINE_string(
    "scratch_dir",
    None,
    "Where --what=convert writes, in a folder that it removes again. Default:"
    " the system's place for temporary files.",
)
flags.DEFINE_string("json_output", None, "File for the same as JSON.")


def run() -> int:
    """Times what the flags name and prints the table; 1 if a row failed."""
    what = flags.FLAGS.what
    needed = "input_dir" if what == "convert" else "records_dir"
    if flags.FLAGS[needed].value is None:
        raise app.UsageError(f"--what={what} needs --{needed}.")
    with quiet.imports():
        from pcam_tfdata.benchmark import configuration, jobs
    options = flag_groups.from_flags(configuration.Options)
    report = jobs.run_benchmark(options)
    print(report.to_text())
    return int(any("error" in row for row in report.rows))
