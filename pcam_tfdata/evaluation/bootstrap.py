"""Bootstrap intervals of every score, over whole slides or patches. No I/O.

A resample draws as many slides as there are, with replacement, each with all
its patches (Field & Welsh 2007). Patches of one slide are alike: drawn one by
one, as they are where slides are unknown, they pass for more evidence than they
are, and the intervals are too narrow.

A resample is not copied: it is how often each patch was drawn, and the scores
are those of patches that have weights, sorted once for all resamples.

`label` is int [num_patches], 0 or 1, and `logit` float [num_patches], finite.
A logit at or above the `boundary` predicts 1. `slide` has the slide of each patch;
without it patches are drawn, not slides.
"""

from collections.abc import Sequence

import numpy as np

from pcam_tfdata.evaluation import metrics

LEVEL = 0.95
# What the difference of two networks is taken of.
COMPARED = ("auc", "nll")
SLIDES = "slides"
PATCHES = "patches"


def compute_intervals(
    label: np.ndarray,
    logit: np.ndarray,
    boundary: float,
    slide: np.ndarray | None = None,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> metrics.Scores:
    """Returns 95% percentile intervals of scores (Efron & Tibshirani 1993).

    A resample whose labels are all equal has no AUC, average precision or
    sensitivity and is left out of theirs. Where such resamples are more than
    the 5% that an interval cuts off, these scores have none. With fewer than 2
    slides, or patches where slides are unknown, no score has one.

    The ECE takes noise for miscalibration, and a resample has more of it than
    the patches: its interval lies high, and for a calibrated network above it.

    0 resamples give no intervals; the same arguments give the same ones.

    Returns:
        `intervals`: the lowest and the highest of each of `metrics.NAMES`, None
        for none; `num_slides`, None where one is unknown; whether `SLIDES` or
        `PATCHES` were `resampled`, how often, and how often all labels were
        equal then.
    """
    unit = number_units(len(label), slide)
    weighted = WeightedScores(label, logit, boundary)
    scores = _resample([weighted], unit, num_resamples, seed)[:, 0]
    ranges = map(_range, scores.T)
    return {
        "num_slides": None if slide is None else int(unit.max()) + 1,
        "intervals": dict(zip(metrics.NAMES, ranges, strict=True)),
        "resampled": PATCHES if slide is None else SLIDES,
        "num_resamples": len(scores),
        "num_one_class_resamples": int(np.isnan(scores).any(axis=1).sum()),
    }


def compute_difference_intervals(
    label: np.ndarray,
    logits: Sequence[np.ndarray],
    slide: np.ndarray | None = None,
    *,
    num_resamples: int = 1000,
    seed: int = 0,
) -> list[dict[str, tuple[float, float] | None]]:
    """Returns 95% intervals of the scores of other networks less the first's.

    All are scored on the same resamples, so what makes patches hard for all
    leaves the difference. There is one for each network but the first. Intervals
    are as `compute_intervals` has them, by the names of `COMPARED`, in their
    order.
    """
    weighted = [WeightedScores(label, logit, 0.0) for logit in logits]
    unit = number_units(len(label), slide)
    scores = _resample(weighted, unit, num_resamples, seed)
    differences = scores[:, 1:] - scores[:, :1]
    return [
        {
            name: _range(differences[:, number, metrics.NAMES.index(name)])
            for name in COMPARED
        }
        for number in range(len(logits) - 1)
    ]


def number_units(num_patches: int, slide: np.ndarray | None) -> np.ndarray:
    """Returns the number of each patch's slide, or its own, from 0: int64."""
    if slide is None:
        return np.arange(num_patches)
    return np.unique(slide, return_inverse=True)[1]


class WeightedScores:
    """The scores of one set of predictions, for any weights of its patches."""

    def __init__(
        self, label: np.ndarray, logit: np.ndarray, boundary: float
    ) -> None:
        logit = np.asarray(logit, np.float64)
        self._order = np.argsort(-logit)
        logit = logit[self._order]
        label = np.asarray(label, np.int64)[self._order]
        probability = metrics.to_probability(logit)
        self._label = label
        # Patches of one logit pass a threshold together: the last one tells.
        self._ends = np.flatnonzero(np.append(np.diff(logit) != 0, True))
        self._per_patch = np.stack(
            [
                (logit >= boundary) == label,
                np.logaddexp(0, logit) - label * logit,
                (probability - label) ** 2,
            ]
        )
        self._bin = metrics.bin_of(probability)
        self._gap = probability - label

    def score(self, weight: np.ndarray) -> np.ndarray:
        """Returns the scores as if each patch were there `weight` times.

        Args:
            weight: int [num_patches], at least 0, not all 0; in the order of
                `label` and `logit`.

        Returns:
            float64 [7], as `metrics.NAMES`; NaN for those that are not defined
            because all labels of positive weight are equal.
        """
        weight = weight[self._order]
        total = weight.sum()
        gap = np.bincount(self._bin, weight * self._gap)
        return np.array(
            [
                *self._rank(weight),
                *(self._per_patch @ weight / total),
                np.abs(gap).sum() / total,
            ]
        )

    def _rank(self, weight: np.ndarray) -> tuple[float, float, float]:
        """Returns AUC, average precision and sensitivity at a specificity."""
        true = np.cumsum(weight * self._label)[self._ends]
        positive = np.cumsum(weight)[self._ends]
        false = positive - true
        num_true, num_false = true[-1], false[-1]
        if not num_true or not num_false:
            return np.nan, np.nan, np.nan
        new_true = np.diff(true, prepend=0)
        new_false = np.diff(false, prepend=0)
        # A tie of both labels is a slope of the ROC curve: half of it counts.
        area = np.sum(new_false * (2 * true - new_true)) / 2
        # At weight 0 nothing is predicted 1 yet, and nothing is new.
        precision = true / np.maximum(positive, 1)
        limit = metrics.max_false_rate(metrics.SPECIFICITY) * num_false
        reached = np.searchsorted(false, limit, side="right")
        return (
            area / (num_true * num_false),
            np.sum(new_true * precision) / num_true,
            (true[reached - 1] if reached else 0) / num_true,
        )


def _resample(
    weighted: Sequence[WeightedScores],
    unit: np.ndarray,
    num_resamples: int,
    seed: int,
) -> np.ndarray:
    """Returns the scores of resamples: float64 [num_resamples, num_networks, 7].

    There are no resamples of fewer than 2 units.
    """
    num_units = int(unit.max()) + 1
    if num_units < 2:
        num_resamples = 0
    scores = np.empty((num_resamples, len(weighted), len(metrics.NAMES)))
    rng = np.random.default_rng(seed)
    for number in range(num_resamples):
        drawn = rng.integers(num_units, size=num_units)
        weight = np.bincount(drawn, minlength=num_units)[unit]
        scores[number] = [network.score(weight) for network in weighted]
    return scores


def _range(values: np.ndarray) -> tuple[float, float] | None:
    """Returns the interval of a score's values; NaN is left out."""
    defined = values[~np.isnan(values)]
    if not len(defined) or len(defined) < LEVEL * len(values):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, (tail, 1 - tail))
    return float(low), float(high)
