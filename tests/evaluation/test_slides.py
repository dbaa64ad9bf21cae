"""Scores of each slide."""

import numpy as np
import pytest

from pcam_tfdata.evaluation import metrics, slides


def test_scores_of_two_slides():
    slide = np.array(["b", "a", "b", "b", "b"])
    label = np.array([0, 1, 1, 0, 1])
    logit = np.array([-2.0, -1.0, 0.5, 1.0, 3.0])
    first, second = slides.score_slides(slide, label, logit, 0.0)
    probability = metrics.to_probability(logit)
    assert first == (
        "a", 1, 1, None, 0.0, probability[1], pytest.approx(np.log1p(np.e)),
    )  # fmt: skip
    patches = slide == "b"
    assert second == (
        "b", 4, 2, 0.75, 0.75, pytest.approx(probability[patches].mean()),
        metrics.nll(label[patches], logit[patches]),
    )  # fmt: skip


def test_slides_count_every_patch_once():
    rng = np.random.default_rng(0)
    slide = rng.choice(["x", "y", "long name"], 100)
    label, logit = rng.integers(0, 2, 100), rng.normal(size=100)
    rows = slides.score_slides(slide, label, logit, 0.0)
    assert [row[0] for row in rows] == ["long name", "x", "y"]
    counts = np.array([row[1] for row in rows])
    assert counts.sum() == 100
    for column, name in ((4, "accuracy"), (6, "nll")):
        mean = np.average([row[column] for row in rows], weights=counts)
        assert mean == pytest.approx(metrics.score(label, logit)[name])
