"""What the page of scores says of its intervals."""

import re

import numpy as np
import pytest

from pcam_tfdata.evaluation import (
    bootstrap,
    calibration,
    metrics,
    score_page,
)
from pcam_tfdata.runs import calibration_file


def page(
    label,
    slide=None,
    num_resamples=100,
    logit=None,
    known=None,
    fractions=((), ()),
) -> str:
    """The page of made-up predictions, on one line."""
    label = np.asarray(label)
    if logit is None:
        logit = np.random.default_rng(0).normal(size=len(label)) + label
    found = bootstrap.compute_intervals(
        label, logit, 0.0, slide, num_resamples=num_resamples
    )
    calibrated = known and known.apply(logit)
    text = score_page.format_scores(
        metrics.score(label, logit)
        | {
            "model": "small_cnn",
            "threshold": 0.5,
            "splits": ["fold0"],
            "records_dir": "records",
            "model_sha256": "0" * 64,
            "manifest_sha256": "1" * 64,
            "warnings": [],
            **calibration.score(label, calibrated, known),
            **metrics.score_fractions(*map(np.array, fractions)),
            **found,
        }
    )
    assert all(len(line) <= 80 for line in text.splitlines())
    return " ".join(text.split())


BALANCED = np.arange(80) % 2


def test_page_names_every_score_with_its_interval():
    text = page(BALANCED)
    number = r"\d\.\d{4}"
    for title in (
        "AUC", "average precision", "sensitivity at 95% specificity",
        "accuracy", r"NLL \(nats\)", "Brier score", r"ECE \(15 bins\)",
    ):  # fmt: skip
        line = rf"{title} {number} \[{number}, {number}\]"
        assert re.search(line, text), title
    assert "percentiles of 100 bootstrap resamples of patches." in text


@pytest.mark.parametrize(
    ("num_slides", "rough"), [(8, True), (40, False)], ids=["few", "many"]
)
def test_few_slides_are_said_to_be_rough(num_slides, rough):
    text = page(BALANCED, np.arange(80) % num_slides)
    assert f"80 patches of {num_slides} slides" in text
    assert "bootstrap resamples of whole slides." in text
    assert ("intervals are rough" in text) == rough
    assert "optimistic" not in text


def test_one_slide_is_why_there_are_no_intervals():
    text = page(BALANCED, np.zeros(80, int))
    assert "80 patches of 1 slide," in text
    assert "No intervals: these are of one slide, expected at least 2." in text
    assert "[" not in text


def test_intervals_not_asked_for_are_not_explained():
    text = page(BALANCED, BALANCED, num_resamples=0)
    assert "ntervals" not in text


def test_resamples_of_one_class_are_told():
    few = page(np.arange(80) < 2, num_resamples=1000)
    assert "sensitivity not defined: too many for an interval." in few
    some = page(np.arange(80) < 4, num_resamples=1000)
    assert "sensitivity not defined: left out there." in some


def test_one_class_is_not_defined_nor_explained():
    text = page(np.zeros(80, int))
    assert "AUC not defined average precision not defined" in text
    assert "all labels are equal" not in text


def test_ece_below_its_interval_is_explained():
    share = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], 10)
    label = np.tile(np.arange(10), 5) < np.round(10 * share)
    calibrated = page(label.astype(int), logit=np.log(share / (1 - share)))
    assert re.search(r"ECE \(15 bins\) 0\.0000 \[0\.0[2-9]", calibrated)
    assert "The ECE is below its interval" in calibrated
    wrong = page(BALANCED, logit=4.0 - 8 * BALANCED)
    assert "The ECE is below its interval" not in wrong


def test_tumor_fractions_are_scored_where_they_are_known():
    assert "tumor fraction" not in page(BALANCED)
    text = page(BALANCED, fractions=([0, 0.5, 1], [0.1, 0.5, 0.8]))
    assert "tumor fraction, mean error 0.1000 tumor fraction, corr" in text
    text = page(BALANCED, fractions=([0, 0, 0], [0.1, 0.5, 0.9]))
    assert "mean error 0.5000" in text
    assert "correlation" not in text


def test_calibrated_scores_are_told_with_what_calibrates():
    logit = 4.0 * BALANCED - 1
    known = calibration_file.Calibration(2.5, -0.25)
    text = page(BALANCED, logit=logit, known=known)
    logit = logit / 2.5 - 0.25
    likelihood = np.logaddexp(0, np.where(BALANCED, -logit, logit))
    assert f"NLL, calibrated {likelihood.mean():.4f} ECE, calibrated 0." in text
    assert (
        "which labels follow here and in pcam predict, are 2.5000 and -0.2500."
        in text
    )
    assert "alibrated" not in page(BALANCED)
