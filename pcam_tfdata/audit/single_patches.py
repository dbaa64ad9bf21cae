"""What single patches are amiss: labels against masks, and blank ones."""

import collections
import dataclasses
from collections.abc import Iterator

from pcam_tfdata import schema
from pcam_tfdata.audit import audit_report, patch_table


def find_mask_conflicts(
    table: patch_table.Table,
) -> Iterator[audit_report.Finding]:
    """Yields which labels say otherwise than the masks did."""
    rows = table.own[table.own["tumor_fraction"].notna()]
    known = rows[rows["label"] != schema.UNLABELED]
    is_wrong = schema.find_contradictions(
        known["label"].to_numpy(), known["tumor_fraction"].to_numpy()
    )
    conflicts = known[is_wrong]
    if len(conflicts):
        num_positive = (conflicts["label"] == schema.POSITIVE).sum()
        text = (
            f"{len(conflicts):,} of {len(known):,} labels contradict the tumor"
            " fraction of their record; label 1 without tumor in the centre:"
            f" {num_positive:,}, label 0 with some:"
            f" {len(conflicts) - num_positive:,}."
        )
        yield audit_report.find_groups(
            table,
            audit_report.Kind.MASK_CONFLICT,
            text,
            [[number] for number in conflicts.index],
            [
                f"tumor fraction {fraction:.4f}"
                for fraction in conflicts["tumor_fraction"]
            ],
        )


def find_blanks(table: patch_table.Table) -> Iterator[audit_report.Finding]:
    """Yields which patches show nearly nothing, those of label 1 first."""
    own = table.own
    blank = own[own["blank"]]
    if blank.empty:
        return
    counts = []
    for label in (schema.NEGATIVE, schema.POSITIVE, schema.UNLABELED):
        of_label = own["blank"][own["label"] == label]
        if len(of_label):
            share = f"{of_label.sum():,} ({of_label.mean():.2%})"
            counts.append(f"label {label}: {share}")
    text = f"{len(blank):,} patches show nearly nothing; {', '.join(counts)}."
    # Those that claim to show tumor are the ones to look at.
    ordered = blank.sort_values("label", ascending=False, kind="stable")
    finding = audit_report.find_groups(
        table,
        audit_report.Kind.BLANK,
        text,
        [[number] for number in ordered.index],
    )
    where = dict(collections.Counter(blank["split"]))
    yield dataclasses.replace(finding, where=where)
