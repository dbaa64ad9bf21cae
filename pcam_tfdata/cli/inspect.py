"""Counts what a records folder holds, and draws patches of it.

Writes overview.json, overview.txt, labels.png and patches.png.
"""

import os

from absl import flags

REQUIRED_FLAGS = ("records_dir", "output_dir")
_NUM_PATCHES = 24

_RECORDS_DIR = flags.DEFINE_string("records_dir", None, "Records folder.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where the files go.")
_SEED = flags.DEFINE_integer("seed", 0, "Another seed draws other patches.")


def run() -> None:
    """Writes the overview and prints it."""
    from pcam_tfdata import overview, report

    summary = overview.summarize(_RECORDS_DIR.value)
    sample = overview.sample_patches(
        _RECORDS_DIR.value, _NUM_PATCHES, _SEED.value
    )
    output_dir = _OUTPUT_DIR.value
    overview.write_summary(output_dir, summary)
    report.plot_label_histogram(summary, os.path.join(output_dir, "labels.png"))
    report.plot_patches(
        sample.images, sample.labels, os.path.join(output_dir, "patches.png")
    )
    print(overview.format_summary(summary), end="")
