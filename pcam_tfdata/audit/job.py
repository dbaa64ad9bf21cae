"""The audit of a records folder: reads all, finds, writes what was found."""

import dataclasses
import functools
import os
from collections.abc import Sequence

from pcam_tfdata.audit import (
    audit_report,
    near_duplicates,
    patch_table,
    scan,
    split_shifts,
    table_findings,
    text_page,
)
from pcam_tfdata.system import csv_files, files, workers

_NUM_EXAMPLES = 20  # Of each finding in JSON.


def audit_folders(
    records_dir: str,
    other_records_dirs: Sequence[str] = (),
    *,
    num_workers: int = 0,
) -> audit_report.Report:
    """Returns what is wrong with a records folder.

    Args:
        records_dir: The records folder.
        other_records_dirs: Folders that it should have nothing in common with.
        num_workers: Processes; 0 for one a core, 1 for this one alone.

    Raises:
        FileNotFoundError, ValueError: a folder is no sound records folder, or
            is named twice.
    """
    folders = [records_dir, *other_records_dirs]
    if len(set(map(os.path.realpath, folders))) < len(folders):
        raise ValueError(
            f"{', '.join(folders)}: found the same folder twice, expected"
            " different ones. Check --other_records_dir."
        )
    with workers.Workers(num_workers, prepare_for=scan.scan_piece) as pool:
        table = patch_table.read_table(pool, folders)
        near, num_left_out = near_duplicates.find_near_duplicates(
            pool, table, num_threads=num_workers or workers.count_cores()
        )
    splits, shifts = split_shifts.compare_splits(table)
    looked_for = [
        *near,
        *table_findings.find_equal_ids(table),
        *table_findings.find_shared_slides(table),
        *table_findings.find_mask_conflicts(table),
        *table_findings.find_blanks(table),
        *shifts,
    ]
    findings = [finding for finding in looked_for if finding.count]
    order = list(audit_report.Kind)
    findings.sort(key=lambda finding: order.index(finding.kind))
    missing = {f.kind for f in looked_for} - {f.kind for f in findings}
    return audit_report.Report(
        leaks=any(finding.gravity == "leak" for finding in findings),
        folders=[
            audit_report.FolderSummary(
                records_dir=folder.path,
                source=table.source(number),
                manifest_sha256=folder.manifest_sha256,
                num_patches=folder.num_patches,
            )
            for number, folder in enumerate(table.folders)
        ],
        findings=findings,
        not_found=[kind.heading for kind in order if kind in missing],
        splits=splits,
        num_pairs_left_out=num_left_out,
    )


def write(output_dir: str, report: audit_report.Report) -> None:
    """Writes audit.txt, audit.json, pairs.csv; each whole or not at all.

    `pairs.csv` has a row for each patch of each group of equal or similar
    patches, of slides one of each split, and for each label that contradicts
    its tumor fraction; a group has a `number` of its own among those of its
    `kind`.
    """
    os.makedirs(output_dir, exist_ok=True)
    path_of = functools.partial(os.path.join, output_dir)
    files.write_text(path_of("audit.txt"), text_page.format_report(report))
    content = dataclasses.asdict(report)
    for finding in content["findings"]:
        del finding["examples"][_NUM_EXAMPLES:]
    files.write_json(path_of("audit.json"), content)
    csv_files.write_csv(
        path_of("pairs.csv"),
        ("kind", "number", *patch_table.PATCH_FIELDS, "note"),
        (
            (finding.kind, number, *dataclasses.astuple(patch), example.note)
            for finding in report.findings
            if finding.kind != audit_report.Kind.BLANK
            for number, example in enumerate(finding.examples)
            for patch in example.patches
        ),
    )
