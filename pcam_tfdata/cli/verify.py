"""Checks every size, hash, CRC, id and count of a records folder."""

import sys

from absl import flags

from pcam_tfdata.cli import flag_groups
from pcam_tfdata.records import verify

REQUIRED_FLAGS = ("records_dir",)
_MAX_SHOWN = 20

flags.DEFINE_string("records_dir", None, "Records to check.")
flag_groups.define_num_workers()


def run() -> int:
    """Prints the faults of the records; returns 1 where there are any."""
    records_dir = flags.FLAGS.records_dir
    problems = verify.verify(records_dir, num_workers=flags.FLAGS.num_workers)
    for problem in problems[:_MAX_SHOWN]:
        print(problem, file=sys.stderr)
    if len(problems) > _MAX_SHOWN:
        print(f"{len(problems):,} faults, {_MAX_SHOWN} shown.", file=sys.stderr)
    if not problems:
        print(f"{records_dir}: sound.")
    return int(bool(problems))
