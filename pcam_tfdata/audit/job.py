"""The audit of a records folder: reads all, finds, writes what was found."""

import dataclasses
import os

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.audit import finding, findings, pairs, shifts, text
from pcam_tfdata.audit import table as patch_tables
from pcam_tfdata.system import csv_files, files, workers

TEXT_FILE = "audit.txt"
JSON_FILE = "audit.json"
PAIRS_FILE = "pairs.csv"
_NUM_EXAMPLES = 20
_PAIR_COLUMNS = (
    "kind", "number", "records_dir", "split", "row", "id", "label", "slide",
    "source_name", "note",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AuditOptions:
    """What to audit.

    Attributes:
        records_dir: The records folder.
        other_records_dirs: Folders that it should have nothing in common with.
        num_workers: Processes; 0 for one a core.
    """

    records_dir: str
    other_records_dirs: tuple[str, ...] = ()
    num_workers: int = 0


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        table: Every patch, numbered.
        findings: The gravest first.
        num_left_out: Pairs that look alike but were too many to compare, at
            the least.
    """

    table: patch_tables.Table
    findings: list[finding.Finding]
    num_left_out: int

    @property
    def has_leaks(self) -> bool:
        """Whether any finding is a leak."""
        return any(f.gravity == finding.LEAK for f in self.findings)


def run(options: AuditOptions) -> Audit:
    """Returns what is wrong with a records folder.

    Raises:
        FileNotFoundError, ValueError: a folder is no sound records folder, or
            is named twice.
    """
    folders = [options.records_dir, *options.other_records_dirs]
    _check_distinct(folders)
    with workers.Workers(options.num_workers) as pool:
        table = patch_tables.read(pool, folders)
        near = pairs.find(
            pool,
            table,
            num_threads=options.num_workers or workers.count_cores(),
        )
    found = findings.find(table, near)
    return Audit(table, found, near.num_left_out)


def summarize(audit: Audit) -> dict[str, object]:
    """Returns what `audit.json` holds.

    Its keys:
        leaks: Whether a finding is a leak.
        folders: `records_dir`, `source`, `manifest_sha256` and `num_patches` of
            each, the audited one first.
        findings: The gravest first. Each has `kind`, `title`, `gravity` (leak,
            conflict, duplicate, note), `count`, `text`, `where` (counts by
            split or pair of splits), and `examples`, 20 at the most. An example
            has a `note` and `patches`, each with `records_dir`, `split`, `row`
            of the sidecar, `id`, `label`, `slide` and `source_name`.
        not_found: The titles of what was looked for and is not there.
        splits: Of the audited folder: `name`, `num_patches`, `num_blank`,
            `share_of_label_1` (null where unlabelled), `channel_mean`,
            `density`, `tissue`, and the largest shift from the other labelled
            splits: `shift`, null or its `measure`, `here`, `elsewhere`,
            `effect`.
        num_pairs_left_out: Pairs that look alike but were too many to compare:
            at least so many. Where it is not 0, near duplicates are counted at
            the least too, and kinds without any are not in `not_found`.
    """
    kinds = {f.kind for f in audit.findings}
    looked_for = _looked_for(audit)
    return {
        "leaks": audit.has_leaks,
        "folders": [_describe_folder(f) for f in audit.table.folders],
        "findings": _describe_findings(audit),
        "not_found": [
            finding.KINDS[kind] for kind in looked_for if kind not in kinds
        ],
        "splits": _describe_splits(audit.table),
        "num_pairs_left_out": audit.num_left_out,
    }


def write(output_dir: str, audit: Audit, summary: dict[str, object]) -> None:
    """Writes audit.txt, audit.json, pairs.csv; each whole or not at all.

    `pairs.csv` has a row for each patch of each group of equal or similar
    patches, of slides one of each split, and for each label that contradicts
    its tumor fraction; a group has a `number` of its own among those of its
    `kind`.
    """
    os.makedirs(output_dir, exist_ok=True)
    files.write_text(
        os.path.join(output_dir, TEXT_FILE), text.format_audit(summary)
    )
    files.write_text(
        os.path.join(output_dir, JSON_FILE), text.format_json(summary)
    )
    csv_files.write_csv(
        os.path.join(output_dir, PAIRS_FILE), _PAIR_COLUMNS, _pair_rows(audit)
    )


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


def _looked_for(audit: Audit) -> list[str]:
    """Returns the kinds of findings that were looked for everywhere."""
    passed_over = {finding.TEST_SET}  # Told only where it is.
    if len(audit.table.folders) == 1:
        passed_over |= finding.OVERLAP_KINDS
    if np.isnan(audit.table.scanned.tumor_fractions).all():
        passed_over.add(finding.MASK_CONFLICT)
    if audit.num_left_out:
        passed_over |= finding.NEAR_KINDS
    if not audit.table.slide.any():
        passed_over |= finding.SLIDE_KINDS
    return [kind for kind in finding.KINDS if kind not in passed_over]


def _describe_folder(folder: patch_tables.Folder) -> dict[str, object]:
    return {
        "records_dir": folder.records_dir,
        "source": folder.source,
        "manifest_sha256": folder.records.manifest_sha256,
        "num_patches": folder.num_patches,
    }


def _describe_findings(audit: Audit) -> list[dict[str, object]]:
    shown = [f.groups[:_NUM_EXAMPLES] for f in audit.findings]
    places = patch_tables.locate(
        audit.table, [n for groups in shown for group in groups for n in group]
    )
    return [
        {
            "kind": f.kind,
            "title": finding.KINDS[f.kind],
            "gravity": f.gravity,
            "count": f.count,
            "text": f.text,
            "where": f.where,
            "examples": [
                {
                    "note": f.notes[number] if f.notes else "",
                    "patches": [places[n] for n in group],
                }
                for number, group in enumerate(groups)
            ],
        }
        for f, groups in zip(audit.findings, shown, strict=True)
    ]


def _describe_splits(table: patch_tables.Table) -> list[dict[str, object]]:
    statistics, labels = table.scanned.statistics, table.scanned.labels
    worst = _worst_shifts(table)
    described = []
    for part in table.sections_of(0):
        here = part.patches
        positive = labels[here] == schema.POSITIVE
        described.append(
            {
                "name": part.name,
                "num_patches": len(positive),
                "num_blank": int(table.is_blank[here].sum()),
                "share_of_label_1": _mean(positive) if part.labeled else None,
                "channel_mean": _mean(statistics.channel_mean[here]),
                "density": _mean(statistics.density[here]),
                "tissue": _mean(statistics.tissue[here]),
                "shift": worst.get(part.name),
            }
        )
    return described


def _worst_shifts(table: patch_tables.Table) -> dict[str, dict[str, object]]:
    values = shifts.measures(table.scanned.statistics)
    return {
        part.name: shifts.compare_stain(values, part.patches, others)[
            0
        ]._asdict()
        for part, others in findings.comparable_sections(table)
    }


def _mean(values: np.ndarray) -> float | list[float] | None:
    """Returns the mean over patches, with four digits; None of none."""
    if not len(values):
        return None
    return np.round(values.mean(axis=0, dtype=np.float64), 4).tolist()


def _pair_rows(audit: Audit) -> list[tuple[object, ...]]:
    listed = [f for f in audit.findings if f.kind != finding.BLANK]
    places = patch_tables.locate(
        audit.table, [n for f in listed for group in f.groups for n in group]
    )
    return [
        (
            f.kind,
            number,
            *places[n].values(),
            f.notes[number] if f.notes else "",
        )
        for f in listed
        for number, group in enumerate(f.groups)
        for n in group
    ]
