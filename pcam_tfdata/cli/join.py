"""Makes one records folder of several, each converted by itself.

Shards are linked, or copied to another disk; splits of the same name are joined.
"""

from absl import flags

from pcam_tfdata.cli import flag_groups
from pcam_tfdata.conversion import join

REQUIRED_FLAGS = ("records_dirs", "output_dir")

flags.DEFINE_list(
    "records_dirs", None, "Records folders, in the order of their patches."
)
flags.DEFINE_string("output_dir", None, "Records folder to make.")
flag_groups.define_overwrite()


def run() -> None:
    """Joins what the flags name."""
    output_dir = flags.FLAGS.output_dir
    made = join.join(
        flags.FLAGS.records_dirs, output_dir, overwrite=flags.FLAGS.overwrite
    )
    print(f"{output_dir}: {made.summarize()}.")
