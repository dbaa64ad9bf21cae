"""Tells what keeps this machine from training, and the command that mends it.

A line for each check: ok, warning, failure or not checked, what was found and
what it means; below it what mends it. Exits with 1 where a check failed.
docs/troubleshooting.md lists symptoms.
"""

import dataclasses
import json

from absl import flags

from pcam_tfdata.doctor import examine, finding

REQUIRED_FLAGS = ()

flags.DEFINE_string("records_dir", None, "Records folder to look at, too.")
flags.DEFINE_bool("json", False, "Print JSON, and nothing else.")
flags.DEFINE_float(
    "timeout_seconds",
    60.0,
    "How long TensorFlow, or another process that is asked, may take.",
    lower_bound=0.1,
)


def run() -> int:
    """Prints what was found; returns 1 where a check failed."""
    findings = []
    options = (flags.FLAGS.records_dir, flags.FLAGS.timeout_seconds)
    for found in examine.examine(*options):
        findings.append(found)
        if not flags.FLAGS.json:
            print(found.format(), flush=True)
    if flags.FLAGS.json:
        print(json.dumps(list(map(dataclasses.asdict, findings)), indent=1))
    return int(any(found.state == finding.FAILURE for found in findings))
