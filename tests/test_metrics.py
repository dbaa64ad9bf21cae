"""Scores against hand-made cases."""

import numpy as np
import pytest

from pcam_tfdata import metrics


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


def test_threshold_is_inclusive():
    scores = metrics.score(np.array([0, 1]), np.array([-1.0, 0.0]), 0.5)
    assert scores["confusion_matrix"] == [[1, 0], [0, 1]]
