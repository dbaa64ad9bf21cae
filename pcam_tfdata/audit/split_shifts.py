"""What the splits of the audited folder are like, and how far they differ.

Differences are standardised: Cohen's d for means, in standard deviations of a
patch, and Cohen's h for shares (Cohen 1988: 0.2 small, 0.5 moderate, 0.8 large).
"""

from collections.abc import Iterator, Sequence
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


def summarize_splits(
    table: patch_table.Table,
) -> list[audit_report.SplitSummary]:
    """Returns how many patches each split has, and what they look like."""
    summaries = []
    for split, here in table.own_splits:
        positive = table.is_positive[here]
        shifts = _compare_stain(table, here)
        summaries.append(
            audit_report.SplitSummary(
                name=split.name,
                num_patches=split.num_records,
                num_blank=int(table.rows["blank"][here].sum()),
                share_of_label_1=_mean(positive) if split.labeled else None,
                channel_mean=_mean(table.statistics.channel_mean[here]),
                density=_mean(table.statistics.density[here]),
                tissue=_mean(table.statistics.tissue[here]),
                shift=shifts[0] if shifts else None,
            )
        )
    return summaries


def find_shifts(table: patch_table.Table) -> Iterator[audit_report.Finding]:
    """Yields in which splits the stain or the classes are others."""
    for split, here in table.own_splits:
        stain = _compare_stain(table, here)
        large = [shift for shift in stain if abs(shift.effect) >= STAIN_SHIFT]
        if large:
            kind = audit_report.Kind.STAIN_SHIFT
            yield _describe(kind, split.name, "d", large)
        if stain and split.labeled:
            others = table.is_positive[_mark_others(table, here)]
            classes = compare_classes(table.is_positive[here], others)
            if abs(classes.effect) >= CLASS_SHIFT:
                kind = audit_report.Kind.CLASS_SHIFT
                yield _describe(kind, split.name, "h", [classes])


def compare_classes(
    here: np.ndarray, elsewhere: np.ndarray
) -> audit_report.Shift:
    """Returns the shift of the share of label 1; 0 where chance explains it.

    Args:
        here: bool [num_patches], which patches of a split have label 1.
        elsewhere: bool [num_patches], which ones of the other splits.
    """
    shares = float(here.mean()), float(elsewhere.mean())
    angles = np.arcsin(np.sqrt(shares))
    effect = _beyond_chance(2 * float(angles[0] - angles[1]), here, elsewhere)
    return audit_report.Shift("share of label 1", *shares, effect)


def name_size(effect: float) -> str:
    """Returns the size of an effect in Cohen's words."""
    if abs(effect) >= _LARGE:
        return "large"
    return "moderate" if abs(effect) >= STAIN_SHIFT else "small"


def _compare_stain(
    table: patch_table.Table, here: slice
) -> list[audit_report.Shift]:
    """Returns a split's shifts from the others, if any, the largest first."""
    others = _mark_others(table, here)
    if here.start == here.stop or not others.any():
        return []
    statistics = table.statistics
    columns = {
        "red density": statistics.density[:, 0],
        "green density": statistics.density[:, 1],
        "blue density": statistics.density[:, 2],
        "brightness": statistics.channel_mean.mean(axis=1),
        "contrast": statistics.channel_std.mean(axis=1),
        "tissue share": statistics.tissue,
    }
    shifts = [
        compare_means(name, column[here], column[others])
        for name, column in columns.items()
    ]
    return sorted(shifts, key=lambda shift: -abs(shift.effect))


def _mark_others(table: patch_table.Table, here: slice) -> np.ndarray:
    """Returns which patches are of the other labelled splits: bool [n]."""
    others = (table.rows["labeled"] & (table.rows["folder"] == 0)).to_numpy(
        copy=True
    )
    others[here] = False
    return others


def compare_means(
    name: str, here: np.ndarray, elsewhere: np.ndarray
) -> audit_report.Shift:
    """Returns the shift of a mean, in Cohen's d; 0 where chance explains it."""
    means = float(here.mean()), float(elsewhere.mean())
    variance = here.var() * len(here) + elsewhere.var() * len(elsewhere)
    deviation = np.sqrt(variance / (len(here) + len(elsewhere)))
    effect = (means[0] - means[1]) / max(float(deviation), _TINY)
    effect = _beyond_chance(effect, here, elsewhere)
    return audit_report.Shift(name, *means, effect)


def _beyond_chance(
    effect: float, here: np.ndarray, elsewhere: np.ndarray
) -> float:
    error = np.sqrt(1 / len(here) + 1 / len(elsewhere))
    return effect if abs(effect) > _STANDARD_ERRORS * error else 0.0


def _describe(
    kind: audit_report.Kind,
    split: str,
    letter: str,
    shifts: Sequence[audit_report.Shift],
) -> audit_report.Finding:
    worst = shifts[0]
    text = (
        f"{split} differs from the other labelled splits: {name_size(worst.effect)} shift in"
        f" {', '.join(shift.measure for shift in shifts)} (Cohen's {letter}"
        f" {worst.effect:+.2f}: {worst.here:.3f} here, {worst.elsewhere:.3f}"
        " there)."
    )
    return audit_report.Finding(
        kind, len(shifts), text, {split: len(shifts)}, []
    )


def _mean(values: np.ndarray) -> Any:
    """Returns the mean over patches, with four digits; None of none."""
    if not len(values):
        return None
    return np.round(values.mean(axis=0, dtype=np.float64), 4).tolist()
