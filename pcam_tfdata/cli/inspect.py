"""Counts what a records folder holds, and draws patches of it.

Writes overview.json, overview.txt, labels and patches as PNG and SVG.
"""

import os

from absl import flags

from pcam_tfdata.cli import next_step, quiet
from pcam_tfdata.runs import outputs

REQUIRED_FLAGS = ("records_dir", "output_dir")
_NUM_PATCHES = 24

flags.DEFINE_string("records_dir", None, "Records folder.")
flags.DEFINE_string("output_dir", None, "Where the files go.")
flags.DEFINE_integer(
    "seed", 0, "Another seed draws other patches.", lower_bound=0
)


def run() -> None:
    """Writes the overview and prints it."""
    with quiet.imports():
        from pcam_tfdata.evaluation import plots
        from pcam_tfdata.records import overview, records_folder
        from pcam_tfdata.system import pictures

    records_dir = flags.FLAGS.records_dir
    output_dir = flags.FLAGS.output_dir
    outputs.check_folder(output_dir, "--output_dir")
    records = records_folder.open_folder(records_dir)
    summary = overview.summarize(records)
    images, labels = overview.sample_patches(
        records, _NUM_PATCHES, flags.FLAGS.seed
    )
    overview.write_overview(output_dir, summary)
    for name, drawing in (
        ("labels.png", plots.draw_label_histogram(records.content)),
        ("patches.png", plots.draw_patches(images, labels)),
    ):
        pictures.save(drawing, os.path.join(output_dir, name))
    print(overview.format_overview(summary), end="")
    next_step.tell_training(records_dir, records.content)
