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
_LARGE = 0.8
# Standard errors, of independent patches, that chance alone does not reach.
_STANDARD_ERRORS = 4.0
_TINY = 1e-6


def compare_splits(
    table: patch_table.Table,
) -> tuple[list[audit_report.SplitSummary], list[audit_report.Finding]]:
    """Returns what each split is like, and which ones differ from the others."""
    statistics, is_positive = table.statistics, table.is_positive
    summaries, findings = [], []
    for split, here in table.own_splits:
        shifts, classes = _compare_with_others(table, here)
        summaries.append(
            audit_report.SplitSummary(
                name=split.name,
                num_patches=split.num_records,
                num_blank=int(statistics.is_blank[here].sum()),
                share_of_label_1=(
                    _mean(is_positive[here]) if split.labeled else None
                ),
                channel_mean=_mean(statistics.channel_mean[here]),
                density=_mean(statistics.density[here]),
                tissue=_mean(statistics.tissue[here]),
                shift=shifts[0] if shifts else None,
            )
        )
        kinds = audit_report.Kind
        large = [shift for shift in shifts if abs(shift.effect) >= STAIN_SHIFT]
        if large:
            findings.append(_describe(kinds.STAIN_SHIFT, split.name, large))
        if classes and split.labeled and abs(classes.effect) >= CLASS_SHIFT:
            findings.append(_describe(kinds.CLASS_SHIFT, split.name, [classes]))
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
        variance = here.var() * counts[0] + elsewhere.var() * counts[1]
        deviation = np.sqrt(variance / sum(counts))
        effect = (means[0] - means[1]) / max(float(deviation), _TINY)
    error = np.sqrt(1 / counts[0] + 1 / counts[1])
    if abs(effect) <= _STANDARD_ERRORS * error:
        effect = 0.0
    return audit_report.Shift(measure, *means, effect)


def name_size(effect: float) -> str:
    """Returns the size of an effect in Cohen's words."""
    if abs(effect) >= _LARGE:
        return "large"
    return "moderate" if abs(effect) >= STAIN_SHIFT else "small"


def _compare_with_others(
    table: patch_table.Table, here: slice
) -> tuple[list[audit_report.Shift], audit_report.Shift | None]:
    """Returns the shifts of a split's stain and classes, the largest first.

    They are those from the other labelled splits, if there are such.
    """
    others = np.array(table.rows["labeled"] & (table.rows["folder"] == 0))
    others[here] = False
    if here.start == here.stop or not others.any():
        return [], None
    statistics = table.statistics
    columns = {
        "red density": statistics.density[:, 0],
        "green density": statistics.density[:, 1],
        "blue density": statistics.density[:, 2],
        "brightness": statistics.channel_mean.mean(axis=1),
        "contrast": statistics.channel_std.mean(axis=1),
        "tissue share": statistics.tissue,
        "share of label 1": table.is_positive,
    }
    *stain, classes = (
        compare(measure, column[here], column[others])
        for measure, column in columns.items()
    )
    return sorted(stain, key=lambda shift: -abs(shift.effect)), classes


def _describe(
    kind: audit_report.Kind, split: str, shifts: Sequence[audit_report.Shift]
) -> audit_report.Finding:
    worst = shifts[0]
    letter = "h" if kind == audit_report.Kind.CLASS_SHIFT else "d"
    text = (
        f"{split} differs from the other labelled splits:"
        f" {name_size(worst.effect)} shift in"
        f" {', '.join(shift.measure for shift in shifts)} (Cohen's {letter}"
        f" {worst.effect:+.2f}: {worst.here:.3f} here, {worst.elsewhere:.3f}"
        " there)."
    )
    where = {split: len(shifts)}
    return audit_report.Finding(
        kind, kind.heading, kind.gravity, len(shifts), text, where, []
    )


def _mean(values: np.ndarray) -> Any:
    """Returns the mean over patches, with four digits; None of none."""
    if not len(values):
        return None
    return np.round(values.mean(axis=0, dtype=np.float64), 4).tolist()
