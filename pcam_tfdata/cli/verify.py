"""Checks every size, hash, CRC, id and count of a records folder."""

import sys

from absl import flags

from pcam_tfdata.cli import flag_groups
from pcam_tfdata.records import verify

REQUIRED_FLAGS = ("records_dir",)
_MAX_SHOWN = 20

flags.DEFINE_string("records_dir", None, "Records to check.")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", 0, "Processes; 0 for one a core.", lower_bound=0
)


def run() -> int:
    """Prints the faults of the records; returns 1 where there are any."""
    problems = verify.verify(
        flag_groups.value("records_dir"), num_workers=_NUM_WORKERS.value
    )
    if not problems:
        print(f"{flag_groups.value('records_dir')}: sound.")
        return 0
    for problem in problems[:_MAX_SHOWN]:
        print(problem, file=sys.stderr)
    if len(problems) > _MAX_SHOWN:
        print(f"{len(problems):,} faults, {_MAX_SHOWN} shown.", file=sys.stderr)
    return 1
