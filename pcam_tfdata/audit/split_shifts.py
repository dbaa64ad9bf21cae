"""What the splits of the audited folder are like, and how far they differ."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pcam_tfdata.audit import audit_report, patch_table

# From where on a difference is told: a moderate stain shift (a network trained
# on one side meets stains that are rare there), a small class shift (38% of label
# 1 against 48%).
STAIN_SHIFT = 0.5
CLASS_SHIFT = 0.2
# Standard errors, of independent patches, that chance alone does not reach.
_STANDARD_ERRORS = 4.0
_TINY = 1e-6


def compare_splits(
    table: patch_table.Table,
) -> tuple[list[audit_report.SplitSummary], list[audit_report.Finding]]:
    """Returns what each split is like, and which ones differ from the others."""
    kinds = audit_report.Kind
    measured, is_positive = table.measured, table.is_positive
    summaries, findings = [], []
    for split, here in table.own_splits:
        stain, classes = _compare_with_others(table, here)
        summaries.append(
            audit_report.SplitSummary(
                name=split.name,
                num_patches=split.num_records,
                num_blank=int(table.rows["blank"][here].sum()),
                share_of_label_1=(
                    _mean(is_positive[here]) if split.labeled else None
                ),
                channel_mean=_mean(measured["channel_mean"][here]),
                density=_mean(measured["density"][here]),
                tissue=_mean(measured["tissue"][here]),
                shift=stain[0] if stain else None,
            )
        )
        large = [shift for shift in stain if abs(shift.effect) >= STAIN_SHIFT]
        findings.append(_describe(kinds.STAIN_SHIFT, split.name, large))
        if not split.labeled:
            continue
        large = [shift for shift in classes if abs(shift.effect) >= CLASS_SHIFT]
        findings.append(_describe(kinds.CLASS_SHIFT, split.name, large))
    return summaries, findings


def compare(
    measure: str, here: np.ndarray, elsewhere: np.ndarray
) -> audit_report.Shift:
    """Returns how far a mean is from another, as a standardised difference.

    It is Cohen's d, in standard deviations of a patch, and of bool Cohen's h
    (Cohen 1988: 0.2 small, 0.5 moderate, 0.8 large); 0 where chance explains it.
    """
    means = float(here.mean()), float(elsewhere.mean())
    counts = len(here), len(elsewhere)
    if here.dtype == bool:
        angles = np.arcsin(np.sqrt(means))
        effect = 2 * float(angles[0] - angles[1])
    else:
        variance = np.average([here.var(), elsewhere.var()], weights=counts)
        effect = (means[0] - means[1]) / max(float(np.sqrt(variance)), _TINY)
    error = np.sqrt(1 / counts[0] + 1 / counts[1])
    if abs(effect) <= _STANDARD_ERRORS * error:
        effect = 0.0
    return audit_report.Shift(measure, *means, effect)


def _compare_with_others(
    table: patch_table.Table, here: slice
) -> tuple[list[audit_report.Shift], list[audit_report.Shift]]:
    """Returns the shifts of a split's stain, the largest first, and of classes.

    They are those from the other labelled splits; without such, there are none.
    """
    others = np.array(table.rows["labeled"] & (table.rows["folder"] == 0))
    others[here] = False
    if not others.any():
        return [], []
    measured = table.measured
    red, green, blue = measured["density"].T
    columns = {
        "red density": red,
        "green density": green,
        "blue density": blue,
        "brightness": measured["channel_mean"].mean(axis=1),
        "contrast": measured["channel_std"].mean(axis=1),
        "tissue share": measured["tissue"],
        "share of label 1": table.is_positive,
    }
    *stain, classes = (
        compare(measure, column[here], column[others])
        for measure, column in columns.items()
    )
    return sorted(stain, key=lambda shift: -abs(shift.effect)), [classes]


def _describe(
    kind: audit_report.Kind, split: str, shifts: Sequence[audit_report.Shift]
) -> audit_report.Finding:
    """Returns the finding of a split's shifts, of which there may be none."""
    text = f"{split} differs from the other labelled splits in "
    if shifts:
        worst = shifts[0]
        letter = "h" if kind == audit_report.Kind.CLASS_SHIFT else "d"
        text += (
            f"{', '.join(shift.measure for shift in shifts)} (Cohen's {letter}"
            f" {worst.effect:+.2f}: {worst.here:.3f} here, {worst.elsewhere:.3f}"
            " there)."
        )
    where = {split: len(shifts)}
    return audit_report.Finding(
        kind, kind.heading, kind.gravity, len(shifts), text, where, []
    )


def _mean(values: np.ndarray) -> Any:
    """Returns the mean over patches, with four digits."""
    return np.round(values.mean(axis=0, dtype=np.float64), 4).tolist()
