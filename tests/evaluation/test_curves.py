"""Bands against a slow bootstrap, and exact counts at thresholds."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from pcam_tfdata.evaluation import curves, metrics


def predictions(num_patches=600, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num_patches)
    return label, 2 * label - 1 + 1.5 * rng.normal(size=num_patches)


@pytest.mark.parametrize("has_slides", [True, False])
def test_bands_are_those_of_resampled_curves(has_slides):
    label, logit = predictions()
    slide = np.arange(600) // 20 if has_slides else None
    # Patches of one slide are alike: bands over slides are wider.
    logit += np.random.default_rng(2).normal(size=30)[np.arange(600) // 20]
    unit = np.arange(600) if slide is None else slide
    rng = np.random.default_rng(1)
    found, precisions = [], []
    for _ in range(400):
        drawn = rng.integers(unit.max() + 1, size=unit.max() + 1)
        own = np.concatenate([np.flatnonzero(unit == n) for n in drawn])
        false, true, _ = sklearn_metrics.roc_curve(
            label[own], logit[own], drop_intermediate=False
        )
        found.append(np.interp(np.linspace(0, 1, 101), false, true))
        part, recall, _ = sklearn_metrics.precision_recall_curve(
            label[own], logit[own]
        )
        reached, first = np.unique(recall[::-1], return_index=True)
        values = np.interp(np.linspace(0, 1, 101), reached, part[::-1][first])
        precisions.append(values)
    expected = np.quantile(found, (0.025, 0.975), axis=0)
    precise = np.quantile(precisions, (0.025, 0.975), axis=0)
    grid, roc, precision = curves.compute_bands(label, logit, slide)
    assert np.abs(roc - expected).mean() < 0.01
    assert grid[10] == pytest.approx(0.1)
    # Few patches are behind a small recall.
    assert np.abs(precision - precise)[:, 10:].mean() < 0.01


def test_counts_are_exact_at_every_threshold_as_it_is_shown():
    label, logit = predictions(3000)
    # Ties, and probabilities that differ in the last digits alone.
    logit = np.concatenate([logit, np.repeat(0.0, 50), 30 + np.arange(50) / 9])
    label = np.concatenate([label, np.arange(100) % 2])
    probability = metrics.to_probability(logit)
    table = curves.count_by_threshold(label, probability)
    assert len(table["thresholds"]) <= 501
    assert {0, 0.5, 1} <= {*table["thresholds"]}
    for threshold, true, false in zip(*table.values(), strict=True):
        assert float(f"{threshold:.6g}") == threshold
        predicted = probability >= threshold
        assert (true, false) == (
            np.sum(predicted & (label == 1)),
            np.sum(predicted & (label == 0)),
        )


def test_thinned_line_keeps_its_shape():
    label, logit = predictions(50_000)
    x, y, _ = sklearn_metrics.roc_curve(label, logit)
    few_x, few_y = curves.thin(x, y)
    assert len(few_x) <= curves.MOST_POINTS
    assert (few_x[0], few_y[0], few_x[-1], few_y[-1]) == (0, 0, 1, 1)
    assert np.abs(np.interp(x, few_x, few_y) - y).max() < 0.01


def test_reliability_gives_the_ece():
    label, logit = predictions(5000)
    probability = metrics.to_probability(3 * logit)
    mean, share = curves.compute_reliability(label, probability)
    weight = np.bincount(metrics.bin_of(probability))
    gap = np.abs(mean - share) @ (weight[weight > 0] / 5000)
    assert gap == pytest.approx(metrics.ece(label, probability))
