"""Calibrations against a grid, and folds that do not see themselves."""

import numpy as np
import pytest

from pcam_tfdata.evaluation import calibration, metrics
from pcam_tfdata.runs import calibration_file


def predictions(
    num_patches: int, temperature: float, seed: int = 0, decimals: int = 9
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits that are calibrated once divided by a temperature."""
    rng = np.random.default_rng(seed)
    logit = np.round(2 * rng.normal(size=num_patches), decimals)
    label = (rng.random(num_patches) < metrics.to_probability(logit)).astype(
        int
    )
    return label, logit * temperature


def platt_loss(label, logit, calibration) -> float:
    """The cross entropy with Platt's targets, which the fit makes least."""
    num_ones, num_zeros = np.sum(label == 1), np.sum(label == 0)
    likely = np.where(
        label == 1, (num_ones + 1) / (num_ones + 2), 1 / (num_zeros + 2)
    )
    changed = calibration.apply(logit)
    losses = np.logaddexp(0, -changed) * likely
    return np.mean(losses + np.logaddexp(0, changed) * (1 - likely))


@pytest.mark.parametrize(
    ("num_patches", "temperature", "decimals"),
    [(300, 2.5, 9), (300, 0.4, 9), (200, 1.0, 0), (9, 1.0, 9), (300, 30, 9),
     (300, 0.02, 9)],
    ids=["too_sure", "too_unsure", "ties", "few", "above", "below"],
)  # fmt: skip
def test_calibration_is_the_best_of_a_grid(num_patches, temperature, decimals):
    label, logit = predictions(num_patches, temperature, decimals=decimals)
    found = calibration.fit(label, logit)
    least = platt_loss(label, logit, found)
    low, high = calibration.BOUNDS
    temperatures = found.temperature * np.geomspace(0.5, 2, 41)
    for divisor in np.clip(temperatures, low, high):
        for shift in found.intercept + np.linspace(-2, 2, 41):
            other = calibration_file.Calibration(divisor, shift)
            assert least <= platt_loss(label, logit, other) + 1e-12
    # At the least, each sum of errors is 0, but of a temperature in its bounds.
    grown = 1 / found.temperature + np.array([-1e-4, 1e-4])
    near = [
        calibration_file.Calibration(1 / slope, found.intercept)
        for slope in grown
    ]
    is_bound = found.temperature in calibration.BOUNDS
    assert is_bound == (temperature in (30, 0.02))
    if not is_bound:
        assert all(least < platt_loss(label, logit, other) for other in near)


@pytest.mark.parametrize("shift", [-0.8, 0.0, 2.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_calibration_of_made_up_logits_is_recovered(temperature, shift):
    label, true = predictions(20_000, 1.0)
    logit = (true - shift) * temperature
    found = calibration.fit(label, logit)
    errors = np.array(found) - (temperature, shift)
    errors[0] = 1 / found.temperature - 1 / temperature
    probability = metrics.to_probability(true)
    weight = probability * (1 - probability)
    columns = np.stack([logit, np.ones(len(logit))])
    information = (columns * weight) @ columns.T
    # Of the maximum likelihood estimate: the chance of more is 3e-7.
    assert errors @ information @ errors < 30
    assert abs(errors).min() > 0


@pytest.mark.parametrize(
    ("label", "logit", "probabilities"),
    [
        ([0, 0, 1, 1], [-3.0, -2, 1, 2], [0.25, 0.25, 0.75, 0.75]),
        ([0, 1], [0.0, 0], [0.5, 0.5]),
        ([1, 1], [0.0, 0.0], [0.5, 0.5]),
        ([0, 1, 1, 1], [2.0] * 4, [0.683333] * 4),
    ],
    ids=["separable", "zero", "one_class", "constant"],
)
def test_few_patches_leave_doubts(label, logit, probabilities):
    label, logit = np.array(label), np.array(logit)
    found = metrics.to_probability(calibration.fit(label, logit).apply(logit))
    np.testing.assert_allclose(found, probabilities, atol=0.12)
    low, high = calibration.BOUNDS
    assert low <= calibration.fit(label, logit).temperature <= high


def test_logits_that_rank_worse_than_none_keep_their_order():
    found = calibration.fit(np.array([1, 0]), np.array([-3.0, 5]))
    assert found.temperature == pytest.approx(calibration.BOUNDS[1])


def test_calibrated_patches_keep_their_order():
    label, logit = predictions(500, 3.0, decimals=1)
    logit = logit.astype(np.float32) + 1
    found = calibration.fit(label, logit)
    assert abs(np.log(found.temperature)) > 0.5
    assert found.intercept < -0.1
    calibrated = metrics.to_probability(found.apply(logit))
    before = metrics.to_probability(logit)
    np.testing.assert_array_equal(
        np.unique(calibrated, return_inverse=True)[1],
        np.unique(before, return_inverse=True)[1],
    )
    assert metrics.auc(label, calibrated) == metrics.auc(label, logit)


@pytest.mark.parametrize("has_slides", [True, False])
def test_no_fold_takes_a_calibration_that_was_fitted_on_it(has_slides):
    label, logit = predictions(300, 2.0, seed=3)
    slide = np.array([f"slide{n % 23}" for n in range(300)])
    given = slide if has_slides else None
    folds = find_folds(label, logit, given)
    assert np.bincount(folds).min() > 30 and folds.max() == 4
    before = calibration.cross_fit(label, logit, given)
    for fold in range(5):
        own = folds == fold
        if has_slides:
            assert not set(slide[own]) & set(slide[~own])
        fitted = calibration.fit(label[~own], logit[~own])
        assert (before[own] == fitted.apply(logit[own])).all()
        changed = np.where(own, 1 - label, label)
        again = calibration.cross_fit(changed, logit, given)
        assert (again[own] == before[own]).all()
        assert (again[~own] != before[~own]).all()


def find_folds(label, logit, slide) -> np.ndarray:
    """The fold of each patch: those that stay as one's label is changed."""
    before = calibration.cross_fit(label, logit, slide)
    folds = np.full(len(label), -1)
    while (folds < 0).any():
        changed = np.array(label)
        first = np.argmin(folds)
        changed[first] = 1 - changed[first]
        after = calibration.cross_fit(changed, logit, slide)
        folds[after == before] = folds.max() + 1
    return folds


@pytest.mark.parametrize("num_units", [1, 2])
def test_few_slides_have_fewer_folds(num_units):
    label, logit = predictions(40, 2.0)
    slide = np.arange(40) % num_units
    expected = np.array(logit)
    if num_units == 2:
        for n in (0, 1):
            other = calibration.fit(label[slide != n], logit[slide != n])
            expected[slide == n] = other.apply(logit[slide == n])
    found = calibration.cross_fit(label, logit, slide)
    np.testing.assert_array_equal(found, expected)


def test_scores_after_are_better_where_logits_are_wrong():
    label, logit = predictions(3000, 3.0)
    logit += 2
    known = calibration.fit(label, logit)
    calibrated = calibration.cross_fit(label, logit)
    found = calibration.score(label, calibrated, known)
    before = metrics.ece(label, metrics.to_probability(logit))
    assert found["nll_calibrated"] < metrics.nll(label, logit) - 0.1
    assert found["ece_calibrated"] < before / 3
    assert (found["temperature"], found["intercept"]) == known
