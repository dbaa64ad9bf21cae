"""The report of an audit as text, and as much of it as JSON has."""

import dataclasses
import re

from pcam_tfdata.audit import audit_report, patch_table

_NUM_EXAMPLES = 20  # In JSON.
_NUM_SHOWN = 3
_NUM_WHERE = 6
_HASH = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")  # SHA-1, SHA-256.
_HASH_LETTERS = 16
_NAME_LETTERS = 32


def shorten(report: audit_report.Report) -> audit_report.Report:
    """Returns a report with 20 examples of each finding at the most."""
    shortened = [
        dataclasses.replace(f, examples=f.examples[:_NUM_EXAMPLES])
        for f in report.findings
    ]
    return dataclasses.replace(report, findings=shortened)


def format_report(report: audit_report.Report) -> str:
    """Returns a report as text: the gravest findings first."""
    lines = [
        f"{folder.records_dir}: {folder.num_patches:,} patches, made from"
        f" {folder.source or 'an unknown source'}."
        for folder in report.folders
    ]
    for finding in report.findings:
        lines += ["", *_finding_lines(finding)]
    if report.not_found:
        lines += ["", f"Not found: {', '.join(report.not_found)}."]
    if report.num_pairs_left_out:
        lines.append(
            f"Not compared: at least {report.num_pairs_left_out:,} more"
            " pairs that look alike; there may be near duplicates of any kind"
            " among them."
        )
    return "\n".join([*lines, "", *_split_lines(report.splits)]) + "\n"


def _finding_lines(finding: audit_report.Finding) -> list[str]:
    lines = [f"{finding.gravity.upper()}: {finding.title}", f"  {finding.text}"]
    if len(finding.where) > 1 or finding.examples:
        shown = [f"{name} {count:,}" for name, count in finding.where.items()]
        if len(shown) > _NUM_WHERE:
            rest = f"and {len(shown) - _NUM_WHERE:,} more"
            shown = [*shown[:_NUM_WHERE], rest]
        lines.append(f"  {', '.join(shown)}")
    for example in finding.examples[:_NUM_SHOWN]:
        patches = " | ".join(map(_format_patch, example.patches[:3]))
        note = f" ({example.note})" if example.note else ""
        lines.append(f"  e.g. {patches}{note}")
    return lines


def _format_patch(patch: patch_table.Patch) -> str:
    slide = f" of {patch.slide}" if patch.slide else ""
    return (
        f"{patch.split} row {patch.row:,} {_shorten(patch.source_name)}{slide}"
        f" label {patch.label}"
    )


def _shorten(name: str) -> str:
    """Returns the part of a name that tells it from others."""
    if _HASH.fullmatch(name):
        return name[:_HASH_LETTERS]
    if len(name) <= _NAME_LETTERS:
        return name
    return f"...{name[-_NAME_LETTERS:]}"


def _split_lines(splits: list[audit_report.SplitSummary]) -> list[str]:
    return [
        f"{'split':<12}{'patches':>9}{'label 1':>9}{'blank':>7}"
        f"{'tissue':>8}{'  density R    G    B':<22}largest difference",
        *map(_split_line, splits),
        "Differences from the other labelled splits, in standard deviations of a"
        " patch (Cohen's d):",
        "0.2 is small, 0.5 moderate, 0.8 large; 0 where chance explains it.",
    ]


def _split_line(split: audit_report.SplitSummary) -> str:
    line = f"{split.name:<12}{split.num_patches:>9,}"
    if split.density is None:
        return line
    share = split.share_of_label_1
    red, green, blue = split.density
    difference = "-"
    if split.shift:
        difference = "0"
        if split.shift.effect:
            difference = f"{split.shift.effect:+.2f} in {split.shift.measure}"
    return (
        f"{line}{'-' if share is None else f'{share:.1%}':>9}"
        f"{split.num_blank:>7,}{split.tissue:>8.1%}"
        f"{red:>11.2f} {green:.2f} {blue:.2f}  {difference}"
    )
