"""The report of an audit as text."""

from pcam_tfdata.audit import audit_report, patch_table

_NUM_SHOWN = 3
_NUM_WHERE = 6
_SPLIT_LINE = "{:<12}{:>9}{:>9}{:>7}{:>8}{:>21}  {}"


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
    header = (
        "split", "patches", "label 1", "blank", "tissue", "density R    G    B",
        "largest difference",
    )  # fmt: skip
    lines += [
        "",
        _SPLIT_LINE.format(*header),
        *map(_split_line, report.splits),
        "Differences from the other labelled splits, in standard deviations of a"
        " patch (Cohen's d):",
        "0.2 is small, 0.5 moderate, 0.8 large; 0 where chance explains it.",
    ]
    return "\n".join(lines) + "\n"


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
        f"{patch.split} row {patch.row:,} {patch.source_name}{slide}"
        f" label {patch.label}"
    )


def _split_line(split: audit_report.SplitSummary) -> str:
    share = split.share_of_label_1
    difference = "-"
    if split.shift:
        difference = "0"
        if split.shift.effect:
            difference = f"{split.shift.effect:+.2f} in {split.shift.measure}"
    return _SPLIT_LINE.format(
        split.name,
        f"{split.num_patches:,}",
        "-" if share is None else f"{share:.1%}",
        f"{split.num_blank:,}",
        f"{split.tissue:.1%}",
        "{:.2f} {:.2f} {:.2f}".format(*split.density),
        difference,
    )
