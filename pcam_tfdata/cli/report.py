"""Writes one page of HTML about records and runs: how good, and whether to trust it.

The page needs nothing else: it opens without a network, on a phone, on paper and
without JavaScript. It shows what pcam evaluate, audit and explain left.
"""

from absl import flags

from pcam_tfdata.cli import quiet
from pcam_tfdata.runs import outputs

REQUIRED_FLAGS = ("records_dir",)

flags.DEFINE_string("records_dir", None, "Records folder.")
flags.DEFINE_list(
    "run_dir", [], "Folders of runs that pcam evaluate has scored on it, or of a"
    " cross-validation. The others are compared with the first. Default: none.",
)  # fmt: skip
flags.DEFINE_list(
    "splits", [], "Scores of which. Default: the runs' validation."
)
flags.DEFINE_string(
    "audit_dir", "", "Where pcam audit wrote. Default: no audit."
)
flags.DEFINE_string("output", "report.html", "The page.")


def run() -> None:
    """Writes the page and prints where it is."""
    given = flags.FLAGS
    outputs.check_file(
        given.output, "--output", suffixes=(".html", ".htm"),
        inputs=[given.records_dir, *filter(None, [given.audit_dir])],
    )  # fmt: skip
    with quiet.imports():
        from pcam_tfdata.report import page
    page.write(
        given.output,
        records_dir=given.records_dir,
        run_dirs=given.run_dir,
        splits=given.splits,
        audit_dir=given.audit_dir,
    )
    print(given.output)
