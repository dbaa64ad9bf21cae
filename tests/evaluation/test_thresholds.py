"""Thresholds against all that there are."""

import numpy as np
import pytest

from pcam_tfdata.evaluation import metrics, operating_point


def predictions(decimals: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(decimals)
    label = (np.arange(240) % 12 < 5).astype(int)  # 100 of 240.
    logit = np.round(rng.normal(size=240) + 1.5 * label, decimals)
    return label, logit.astype(np.float32)


def search(wanted, label, probability) -> float:
    """The slow twin: each probability, and the next number above each."""
    candidates = np.unique([probability, np.nextafter(probability, 2)])
    is_positive = probability >= candidates[:, None]
    if wanted.name == "sensitivity":
        num_right = (is_positive & (label == 1)).sum(1)
        total, best = (label == 1).sum(), max
    else:
        num_right = (~is_positive & (label == 0)).sum(1)
        total, best = (label == 0).sum(), min
    # Counts of one, shares of the other: 0.07 x 100 is above 7.
    return best(candidates[num_right >= np.round(wanted.rate * total, 6)])


@pytest.mark.parametrize("decimals", [9, 1, 0], ids=["none", "many", "most"])
@pytest.mark.parametrize("rate", [0.07, 0.5, 0.9, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("name", ["sensitivity", "specificity"])
def test_threshold_is_the_best_of_all(name, rate, decimals):
    label, logit = predictions(decimals)
    probability = metrics.to_probability(logit)
    wanted = operating_point.Wanted(name, rate)
    found = operating_point.choose_threshold(wanted, label, probability)
    assert found == search(wanted, label, probability)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", 0.5),
        ("1", 1.0),
        ("0", 0.0),
        ("sensitivity:0.95", operating_point.Wanted("sensitivity", 0.95)),
        ("specificity:1", operating_point.Wanted("specificity", 1.0)),
    ],
)
def test_threshold_is_read(text, expected):
    assert operating_point.parse_threshold(text) == expected


@pytest.mark.parametrize(
    "text",
    ["-0.1", "1.5", "nan", "x", "sensitivity", "sensitivity:0",
     "specificity:95", "sensitivity:nan", "recall:0.9", "specificity:"],
)  # fmt: skip
def test_what_is_no_threshold_is_refused(text):
    with pytest.raises(ValueError, match=f"^found '{text}', expected a prob"):
        operating_point.parse_threshold(text)


def test_rate_of_a_class_without_patches_is_refused():
    wanted = operating_point.Wanted("sensitivity", 0.9)
    with pytest.raises(
        ValueError, match="found no validation patch of label 1"
    ):
        operating_point.choose_threshold(
            wanted, np.zeros(3, int), np.full(3, 0.5)
        )
