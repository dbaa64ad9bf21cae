"""Finds leaks, equal and similar patches, conflicts, blanks and stain shifts.

Prints what it found, the gravest first. With --output_dir it also writes
audit.txt, audit.json, pairs.csv (every group of equal or similar patches, the
slides of several splits, and labels that contradict their mask). pcam report shows
the patches. Exits with 0 whatever it finds, but see --fail_on.
"""

from absl import flags

from pcam_tfdata.cli import flag_groups, next_step, quiet
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import outputs

REQUIRED_FLAGS = ("records_dir",)
_NEVER, _LEAKS = "never", "leaks"

flags.DEFINE_string("records_dir", None, "Records folder to look at.")
flags.DEFINE_list(
    "other_records_dir",
    [],
    "Records folders that should have no patch in common with it.",
)
flags.DEFINE_string("output_dir", None, "Where files go. Default: none.")
flags.DEFINE_enum(
    "fail_on", _NEVER, (_NEVER, _LEAKS), "What makes the command exit with 1."
)
flag_groups.define_num_workers()


def run() -> int:
    """Prints what was found; returns 1 where --fail_on says so."""
    with quiet.imports():
        from pcam_tfdata.audit import job, text_page

    records_dir, output_dir = flags.FLAGS.records_dir, flags.FLAGS.output_dir
    if output_dir:
        outputs.check_folder(output_dir, "--output_dir")
    report = job.audit_folders(
        records_dir,
        flags.FLAGS.other_records_dir,
        num_workers=flags.FLAGS.num_workers,
    )
    if output_dir:
        job.write(output_dir, report)
    print(text_page.format_report(report), end="")
    if report.leaks and output_dir:
        next_step.tell(
            "report",
            f"--records_dir={records_dir}",
            f"--audit_dir={output_dir}",
        )
    elif not report.leaks:
        records = records_folder.open_folder(records_dir)
        next_step.tell_training(records.path, records.content)
    return int(flags.FLAGS.fail_on == _LEAKS and report.leaks)
