"""Tells whether one run is better than another, or only luckier.

Both are scored on the same validation patches, which pcam evaluate has predicted:
AUC and NLL of each, and a 95% interval of the difference, by a paired bootstrap
over slides where they are known. An interval that excludes 0 is a difference.
"""

from absl import app, flags

from pcam_tfdata.cli import quiet

REQUIRED_FLAGS = ("run_dir",)

flags.DEFINE_list("run_dir", None, "Folders of two runs: a,b.")
flags.DEFINE_integer(
    "num_resamples", 1000, "Bootstrap resamples.", lower_bound=1
)


def run() -> None:
    """Prints the comparison."""
    run_dirs = flags.FLAGS.run_dir
    if len(run_dirs) != 2:
        raise app.UsageError(
            f"--run_dir: found {len(run_dirs)} folders, expected two: a,b."
        )
    with quiet.imports():
        from pcam_tfdata.evaluation import compare
    comparison = compare.compare(
        *run_dirs, num_resamples=flags.FLAGS.num_resamples
    )
    print(compare.format_comparison(comparison), end="")
