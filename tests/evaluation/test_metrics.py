"""Scores against hand-made cases."""

import numpy as np
import pytest

from pcam_tfdata.evaluation import metrics


def test_scores_of_four_patches():
    label = np.array([0, 0, 1, 1])
    logit = np.array([-2.0, 1.0, 0.5, 3.0])
    scores = metrics.score(label, logit)
    assert scores["auc"] == 0.75
    assert scores["accuracy"] == 0.75
    assert scores["confusion_matrix"] == [[1, 1], [0, 2]]
    probability = 1 / (1 + np.exp(-logit))
    likelihood = np.where(label, probability, 1 - probability)
    assert scores["nll"] == pytest.approx(-np.log(likelihood).mean())
    assert scores["brier"] == pytest.approx(((probability - label) ** 2).mean())


def test_large_logits_keep_their_order_and_do_not_overflow():
    probability = metrics.to_probability(np.array([-800, 17, 25, 30.0]))
    assert probability[0] == 0
    assert (np.diff(probability) > 0).all()


def test_one_class_has_no_auc():
    scores = metrics.score(np.zeros(3, int), np.array([0.1, -1, 2]))
    assert scores["auc"] is None
    assert scores["average_precision"] is None
    assert scores["sensitivity_at_95_specificity"] is None


def test_boundary_is_inclusive():
    scores = metrics.score(np.array([0, 1]), np.array([-1.0, 0.0]), 0.0)
    assert scores["confusion_matrix"] == [[1, 0], [0, 1]]


def test_boundary_parts_logits_whose_probabilities_are_1_alike():
    label, logit = np.array([0, 1]), np.array([39.0, 41.0])
    assert metrics.to_probability(logit).tolist() == [1, 1]
    scores = metrics.score(label, logit, 40.0)
    assert scores["confusion_matrix"] == [[1, 0], [0, 1]]


def test_calibration_error_of_four_patches():
    probability = np.array([0.1, 0.1, 0.9, 0.95])
    # Bin 1: |0.1 - 0.5|, twice; bin 13: 0.1; bin 14: 0.05.
    found = metrics.ece(np.array([0, 1, 1, 1]), probability)
    assert found == pytest.approx((2 * 0.4 + 0.1 + 0.05) / 4)


def test_calibration_error_is_of_bins_not_of_patches():
    label = np.arange(10) < 2
    assert metrics.ece(label, np.full(10, 0.2)) == pytest.approx(0)
    assert metrics.ece(label, np.ones(10)) == pytest.approx(0.8)


def test_certain_and_wrong_probabilities_are_in_the_end_bins():
    assert metrics.bin_of(np.array([0, 1 / 15, 0.5, 1])).tolist() == [
        0, 1, 7, 14,
    ]  # fmt: skip
    assert metrics.ece(np.array([0, 1]), np.array([1.0, 0.0])) == 1


@pytest.mark.parametrize(
    ("negative_at_4", "expected"),
    [(False, 0.75), (True, 0.5)],
    ids=["one_false", "two_false"],
)
def test_sensitivity_takes_ties_together(negative_at_4, expected):
    positive = [6, 5, 4, -2]  # The 5 ties with a negative: 1 of 20 may be.
    negative = [5, 4 if negative_at_4 else 0, *range(-20, -2)]
    label = np.repeat([1, 0], [len(positive), len(negative)])
    logit = np.array(positive + negative, float)
    assert metrics.sensitivity_at_specificity(label, logit) == expected
    scores = metrics.score(label, logit)
    assert scores["sensitivity_at_95_specificity"] == expected


def test_specificity_that_rounds_is_reached():
    label = np.repeat([0, 1], [10, 2])
    logit = np.array([*range(9), 20, 10, 11.0])
    # 1 of 10 negatives is above: 1 - 0.9 is 0.09999999999999998.
    assert metrics.sensitivity_at_specificity(label, logit, 0.9) == 1
    assert metrics.sensitivity_at_specificity(label, logit, 0.95) == 0


def test_average_precision_tells_large_logits_apart():
    label, logit = np.array([0, 1]), np.array([50.0, 60.0])
    assert metrics.score(label, logit)["average_precision"] == 1
