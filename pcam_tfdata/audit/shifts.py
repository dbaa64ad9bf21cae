"""How far a split's stain and classes are from those of the other splits.

Differences are standardised: Cohen's d for means, in standard deviations of a
patch, and Cohen's h for shares (Cohen 1988: 0.2 small, 0.5 moderate, 0.8 large).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.audit import patch_statistics

# From where on a difference is told: a moderate stain shift (a network trained
# on one side meets stains that are rare there), a small class shift (38% of label
# 1 against 48%).
STAIN_SHIFT = 0.5
CLASS_SHIFT = 0.2
_LARGE = 0.8
# Standard errors, of independent patches, that chance alone does not reach.
_STANDARD_ERRORS = 4.0
_TINY = 1e-6


class Shift(NamedTuple):
    """A split that differs from the other labelled splits of its folder.

    Attributes:
        measure: What differs, such as `red density`.
        here: Its mean in the split.
        elsewhere: Its mean in the others.
        effect: Cohen's d or h; positive if `here` is larger.
    """

    measure: str
    here: float
    elsewhere: float
    effect: float

    @property
    def size(self) -> str:
        """In Cohen's words, but for the label, where a small one is told."""
        if abs(self.effect) >= _LARGE:
            return "large"
        return "moderate" if abs(self.effect) >= STAIN_SHIFT else "small"


def measures(statistics: patch_statistics.Statistics) -> dict[str, np.ndarray]:
    """Returns what is compared, by name: float32 [n] each."""
    return {
        "red density": statistics.density[:, 0],
        "green density": statistics.density[:, 1],
        "blue density": statistics.density[:, 2],
        "brightness": statistics.channel_mean.mean(axis=1),
        "contrast": statistics.channel_std.mean(axis=1),
        "tissue share": statistics.tissue,
    }


def compare_stain(
    values: dict[str, np.ndarray], here: slice, others: Sequence[slice]
) -> list[Shift]:
    """Returns the stain shifts of a split, the largest first.

    Args:
        values: Of `measures`.
        here: Patches of the split.
        others: Of the splits that it is compared with.
    """
    return sorted(
        (
            _compare_means(
                name,
                column[here],
                np.concatenate([column[part] for part in others]),
            )
            for name, column in values.items()
        ),
        key=lambda shift: -abs(shift.effect),
    )


def compare_classes(
    labels: np.ndarray, here: slice, others: Sequence[slice]
) -> Shift:
    """Returns the shift of the share of label 1; 0 where chance explains it."""
    elsewhere = np.concatenate([labels[part] for part in others])
    shares = [
        float((side == schema.POSITIVE).mean())
        for side in (labels[here], elsewhere)
    ]
    effect = 2 * float(np.diff(np.arcsin(np.sqrt(shares[::-1])))[0])
    counts = len(labels[here]), len(elsewhere)
    return Shift("share of label 1", *shares, _beyond_chance(effect, *counts))


def _compare_means(name: str, here: np.ndarray, elsewhere: np.ndarray) -> Shift:
    means = float(here.mean()), float(elsewhere.mean())
    variance = here.var() * len(here) + elsewhere.var() * len(elsewhere)
    deviation = np.sqrt(variance / (len(here) + len(elsewhere)))
    effect = (means[0] - means[1]) / max(float(deviation), _TINY)
    effect = _beyond_chance(effect, len(here), len(elsewhere))
    return Shift(name, *means, effect)


def _beyond_chance(effect: float, num_here: int, num_elsewhere: int) -> float:
    error = np.sqrt(1 / num_here + 1 / num_elsewhere)
    return effect if abs(effect) > _STANDARD_ERRORS * error else 0.0
