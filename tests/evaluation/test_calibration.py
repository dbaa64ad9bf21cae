"""Temperatures against a grid, and folds that do not see themselves."""

import numpy as np
import pytest

from pcam_tfdata.evaluation import calibration, metrics


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


@pytest.mark.parametrize(
    ("num_patches", "temperature", "decimals"),
    [(300, 2.5, 9), (300, 0.4, 9), (200, 1.0, 0), (9, 1.0, 9), (300, 30, 9),
     (300, 0.02, 9)],
    ids=["too_sure", "too_unsure", "ties", "few", "above", "below"],
)  # fmt: skip
def test_temperature_is_the_best_of_a_grid(num_patches, temperature, decimals):
    label, logit = predictions(num_patches, temperature, decimals=decimals)
    grid = np.geomspace(*calibration.BOUNDS, 4001)
    losses = [metrics.nll(label, logit / divisor) for divisor in grid]
    found = calibration.fit_temperature(label, logit)
    # As near as the grid is dense: 1.00115 from one to the next.
    assert found == pytest.approx(grid[np.argmin(losses)], rel=0.002)
    assert metrics.nll(label, logit / found) <= min(losses) + 1e-12


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_of_made_up_logits_is_recovered(temperature):
    label, logit = predictions(20_000, temperature)
    probability = metrics.to_probability(logit, temperature)
    information = np.sum(logit**2 * probability * (1 - probability))
    error = 1 / calibration.fit_temperature(label, logit) - 1 / temperature
    # Of the maximum likelihood estimate: 4 standard errors.
    assert abs(error) < 4 / np.sqrt(information)
    assert abs(error) > 0


@pytest.mark.parametrize(
    ("label", "logit", "expected"),
    [
        ([0, 1, 1], [-1.0, 2, 0], 1),
        ([0, 1], [0.0, 0], 1),
        ([1, 1], [3.0, 4], 1),
        ([0, 1, 1, 1], [2.0] * 4, 2 / np.log(3)),
        ([0, 0, 0, 1], [2.0] * 4, 10),
        ([1, 0], [-3.0, 5], 10),
        ([0, 1, 1], [1e-9, 1, 1], 0.1),
    ],
    ids=["separable", "zero", "one_class", "constant", "constant_of_other_sign",
         "reversed", "almost_separable"],
)  # fmt: skip
def test_logits_that_tell_no_temperature(label, logit, expected):
    found = calibration.fit_temperature(np.array(label), np.array(logit))
    assert found == pytest.approx(expected, rel=1e-9)


def test_calibrated_patches_keep_their_order():
    label, logit = predictions(500, 3.0, decimals=1)
    logit = logit.astype(np.float32)
    found = calibration.fit_temperature(label, logit)
    assert abs(np.log(found)) > 0.5
    calibrated = metrics.to_probability(logit, found)
    before = metrics.to_probability(logit)
    np.testing.assert_array_equal(
        np.unique(calibrated, return_inverse=True)[1],
        np.unique(before, return_inverse=True)[1],
    )
    assert metrics.auc(label, calibrated) == metrics.auc(label, logit)


@pytest.mark.parametrize("has_slides", [True, False])
def test_no_fold_takes_a_temperature_that_was_fitted_on_it(has_slides):
    label, logit = predictions(300, 2.0, seed=3)
    slide = np.array([f"slide{n % 23}" for n in range(300)])
    unit = slide if has_slides else np.arange(300)
    given = slide if has_slides else None
    temperature = logit / calibration.cross_fit(label, logit, given)
    folds = np.unique(np.round(temperature, 9), return_inverse=True)[1]
    assert np.bincount(folds).min() > 30 and folds.max() == 4
    for fold in range(5):
        own = folds == fold
        assert not set(unit[own]) & set(unit[~own])
        fitted = calibration.fit_temperature(label[~own], logit[~own])
        np.testing.assert_allclose(temperature[own], fitted, rtol=1e-12)
        changed = np.where(own, 1 - label, label)
        again = logit / calibration.cross_fit(changed, logit, given)
        assert (again[own] == temperature[own]).all()
        assert (again[~own] != temperature[~own]).all()


@pytest.mark.parametrize("num_units", [1, 2])
def test_few_slides_have_fewer_folds(num_units):
    label, logit = predictions(40, 2.0)
    slide = np.arange(40) % num_units
    found = logit / calibration.cross_fit(label, logit, slide)
    expected = np.ones(40)
    if num_units == 2:
        of_slide = [
            calibration.fit_temperature(label[slide == n], logit[slide == n])
            for n in (0, 1)
        ]
        expected = np.array(of_slide)[1 - slide]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_scores_after_are_better_where_logits_are_too_sure():
    label, logit = predictions(3000, 3.0)
    found = calibration.score(label, calibration.cross_fit(label, logit))
    before = metrics.ece(label, metrics.to_probability(logit))
    assert found["nll_calibrated"] < metrics.nll(label, logit) - 0.1
    assert found["ece_calibrated"] < before / 3
