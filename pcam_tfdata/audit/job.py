"""The audit of a records folder: reads all, finds, writes what was found."""

import dataclasses
import os
from collections.abc import Sequence

from pcam_tfdata.audit import (
    audit_report,
    equal_ids,
    near_duplicates,
    patch_table,
    scan,
    shared_slides,
    single_patches,
    split_shifts,
    text_page,
)
from pcam_tfdata.system import csv_files, files, workers

TEXT_FILE = "audit.txt"
JSON_FILE = "audit.json"
PAIRS_FILE = "pairs.csv"


def audit_folders(
    records_dir: str,
    other_records_dirs: Sequence[str] = (),
    *,
    num_workers: int = 0,
) -> tuple[patch_table.Table, audit_report.Report]:
    """Returns all patches, and what is wrong with a records folder.

    Args:
        records_dir: The records folder.
        other_records_dirs: Folders that it should have nothing in common with.
        num_workers: Processes; 0 for one a core.

    Raises:
        FileNotFoundError, ValueError: a folder is no sound records folder, or
            is named twice.
    """
    folders = [records_dir, *other_records_dirs]
    _check_distinct(folders)
    with workers.Workers(num_workers, prepare_for=scan.scan_piece) as pool:
        table = patch_table.read_table(pool, folders)
        near, num_left_out = near_duplicates.find_near_duplicates(
            pool, table, num_threads=num_workers or workers.count_cores()
        )
    splits, shifts = split_shifts.compare_splits(table)
    findings = [
        *equal_ids.find_equal_ids(table),
        *near,
        *shared_slides.find_shared_slides(table),
        *single_patches.find_mask_conflicts(table),
        *single_patches.find_blanks(table),
        *shifts,
    ]
    order = list(audit_report.Kind)
    findings.sort(key=lambda finding: order.index(finding.kind))
    passed_over = _list_passed_over(table, num_left_out)
    passed_over |= {finding.kind for finding in findings}
    report = audit_report.Report(
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
        not_found=[kind.heading for kind in order if kind not in passed_over],
        splits=splits,
        num_pairs_left_out=num_left_out,
    )
    return table, report


def write(output_dir: str, report: audit_report.Report) -> None:
    """Writes audit.txt, audit.json, pairs.csv; each whole or not at all.

    `pairs.csv` has a row for each patch of each group of equal or similar
    patches, of slides one of each split, and for each label that contradicts
    its tumor fraction; a group has a `number` of its own among those of its
    `kind`.
    """
    os.makedirs(output_dir, exist_ok=True)
    files.write_text(
        os.path.join(output_dir, TEXT_FILE), text_page.format_report(report)
    )
    files.write_json(
        os.path.join(output_dir, JSON_FILE),
        dataclasses.asdict(text_page.shorten(report)),
    )
    csv_files.write_csv(
        os.path.join(output_dir, PAIRS_FILE),
        ("kind", "number", *patch_table.PATCH_FIELDS, "note"),
        (
            (finding.kind, number, *dataclasses.astuple(patch), example.note)
            for finding in report.findings
            if finding.kind != audit_report.Kind.BLANK
            for number, example in enumerate(finding.examples)
            for patch in example.patches
        ),
    )


def _list_passed_over(
    table: patch_table.Table, num_left_out: int
) -> set[audit_report.Kind]:
    """Returns the kinds that were not looked for everywhere."""
    kinds = {audit_report.Kind.TEST_SET}  # Told only where it is.
    if len(table.folders) == 1:
        kinds |= audit_report.OVERLAP_KINDS
    if table.rows["tumor_fraction"].isna().all():
        kinds.add(audit_report.Kind.MASK_CONFLICT)
    if num_left_out:
        kinds |= audit_report.NEAR_KINDS
    if table.rows["slide"].eq("").all():
        kinds |= audit_report.SLIDE_KINDS
    return kinds


def _check_distinct(folders: list[str]) -> None:
    seen: dict[str, str] = {}
    for folder in folders:
        real = os.path.realpath(folder)
        if real in seen:
            raise ValueError(
                f"{folder}: found the same folder as {seen[real]}, expected"
                " another one. Check --other_records_dir."
            )
        seen[real] = folder
