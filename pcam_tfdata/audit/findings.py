"""What is wrong with a data set, from what was read of its patches. Pure."""

import collections
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.audit import alignment, equal, finding, shared_slides, shifts
from pcam_tfdata.audit import pairs as near
from pcam_tfdata.audit import table as tables


def find(
    table: tables.Table, near_pairs: near.NearPairs
) -> list[finding.Finding]:
    """Returns all findings, the gravest first."""
    return finding.sort_by_gravity(
        [
            *equal.find(table),
            *_near(table, near_pairs),
            *shared_slides.find(table),
            *_mask_conflicts(table),
            *_blanks(table),
            *_shifts(table),
        ]
    )


def comparable_sections(
    table: tables.Table,
) -> list[tuple[tables.Section, list[slice]]]:
    """Returns splits of the audited folder, each with the others labelled."""
    own = [part for part in table.sections_of(0) if part.num_patches]
    compared = []
    for part in own:
        others = [o.patches for o in own if o.labeled and o is not part]
        if others:
            compared.append((part, others))
    return compared


def _near(table: tables.Table, found: near.NearPairs) -> list[finding.Finding]:
    within = table.section[found.first] == table.section[found.second]
    other = table.folder[found.second]
    kinds = [
        (
            finding.NEAR_ACROSS,
            finding.LEAK,
            ~within & (other == 0),
            "in different splits",
        ),
        (finding.NEAR_WITHIN, finding.DUPLICATE, within, "in the same split"),
    ]
    for number in range(1, len(table.folders)):
        name = table.folders[number].records_dir
        kinds.append(
            (
                finding.NEAR_OVERLAP,
                finding.LEAK,
                other == number,
                f"with {name}",
            )
        )
    return [
        _near_finding(table, kind, gravity, found.select(chosen), where)
        for kind, gravity, chosen, where in kinds
        if chosen.any()
    ]


def _near_finding(
    table: tables.Table,
    kind: str,
    gravity: str,
    found: near.NearPairs,
    where: str,
) -> finding.Finding:
    labels = table.scanned.labels
    first, second = labels[found.first], labels[found.second]
    num_apart = int(((first >= 0) & (second >= 0) & (first != second)).sum())
    apart = f"; {num_apart:,} have different labels" if num_apart else ""
    num_pairs = len(found.first)
    pairs, verb = f"{num_pairs:,} pairs", "show"
    if num_pairs == 1:
        pairs, verb = "1 pair", "shows"
    if found.num_left_out:
        pairs = f"at least {pairs}"
    text = (
        f"{pairs} {where} {verb} the same tissue"
        f" ({_count_moves(found)}){apart}."
    )
    groups = np.stack([found.first, found.second], axis=1).tolist()
    notes = [
        f"{near.describe_move(move, shift)}, correlation {score:.2f}"
        for move, shift, score in zip(
            found.moves, found.shifts, found.scores, strict=True
        )
    ]
    return finding.Finding(
        kind=kind,
        gravity=gravity,
        count=len(groups),
        text=text,
        where=finding.count_splits(table, groups),
        groups=groups,
        notes=notes,
    )


def _count_moves(found: near.NearPairs) -> str:
    turned = found.moves > 0
    distance = np.abs(found.shifts).max(axis=1)
    parts = {
        "in the same place": ~turned & (distance == 0),
        "moved by 1-8 pixels": ~turned & (distance > 0) & (distance <= 8),
        f"moved by 9-{alignment.MAX_SHIFT} pixels": ~turned & (distance > 8),
        "turned or mirrored": turned,
    }
    return ", ".join(
        f"{int(chosen.sum()):,} {name}"
        for name, chosen in parts.items()
        if chosen.any()
    )


def _mask_conflicts(table: tables.Table) -> list[finding.Finding]:
    """Returns which labels say otherwise than the masks did."""
    labels = table.scanned.labels
    fractions = table.scanned.tumor_fractions
    own = table.folder == 0
    is_known = own & (labels >= 0) & ~np.isnan(fractions)
    numbers = np.flatnonzero(
        own & schema.find_contradictions(labels, fractions)
    )
    if not len(numbers):
        return []
    num_positive = int((labels[numbers] == schema.POSITIVE).sum())
    text = (
        f"{len(numbers):,} of {is_known.sum():,} labels contradict the tumor"
        f" fraction of their record; label 1 without tumor in the centre:"
        f" {num_positive:,}, label 0 with some: {len(numbers) - num_positive:,}."
    )
    groups = [[number] for number in numbers.tolist()]
    notes = [f"tumor fraction {fractions[number]:.4f}" for number in numbers]
    where = finding.count_splits(table, groups)
    return [
        finding.Finding(
            finding.MASK_CONFLICT, finding.CONFLICT, len(groups), text, where,
            groups, notes,
        )
    ]  # fmt: skip


def _blanks(table: tables.Table) -> list[finding.Finding]:
    own = table.folder == 0
    blank = own & table.is_blank
    if not blank.any():
        return []
    labels = table.scanned.labels
    parts = []
    for label in (schema.NEGATIVE, schema.POSITIVE, schema.UNLABELED):
        of_label = own & (labels == label)
        if of_label.any():
            count = int((blank & of_label).sum())
            share = count / of_label.sum()
            parts.append(f"label {label}: {count:,} ({share:.2%})")
    text = f"{blank.sum():,} patches show nearly nothing; {', '.join(parts)}."
    numbers = np.flatnonzero(blank)
    # Those that claim to show tumor are the ones to look at.
    order = np.argsort(-labels[numbers], kind="stable")
    groups = [[number] for number in numbers[order].tolist()]
    where = collections.Counter(
        table.name(table.section[number]) for number in numbers
    )
    return [
        finding.Finding(
            finding.BLANK, finding.NOTE, len(groups), text, dict(where), groups
        )
    ]


def _shifts(table: tables.Table) -> list[finding.Finding]:
    values = shifts.measures(table.scanned.statistics)
    found = []
    for part, others in comparable_sections(table):
        stain = shifts.compare_stain(values, part.patches, others)
        large = [s for s in stain if abs(s.effect) >= shifts.STAIN_SHIFT]
        if large:
            found.append(_shift_finding(finding.STAIN_SHIFT, part, large))
        if part.labeled:
            classes = shifts.compare_classes(
                table.scanned.labels, part.patches, others
            )
            if abs(classes.effect) >= shifts.CLASS_SHIFT:
                found.append(
                    _shift_finding(finding.CLASS_SHIFT, part, [classes])
                )
    return found


def _shift_finding(
    kind: str, part: tables.Section, found: Sequence[shifts.Shift]
) -> finding.Finding:
    worst = found[0]
    letter = "h" if kind == finding.CLASS_SHIFT else "d"
    text = (
        f"{part.name} differs from the other labelled splits: {worst.size}"
        f" shift in {', '.join(shift.measure for shift in found)} (Cohen's"
        f" {letter} {worst.effect:+.2f}: {worst.here:.3f} here,"
        f" {worst.elsewhere:.3f} there)."
    )
    return finding.Finding(
        kind, finding.NOTE, len(found), text, {part.name: len(found)}
    )
