"""Weighted scores against scikit-learn, intervals against what they promise."""

import statistics

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from pcam_tfdata.evaluation import bootstrap, metrics


def predictions(
    num_patches: int, seed: int = 0, decimals: int = 9
) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and logits that tell something of them."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num_patches)
    logit = rng.normal(size=num_patches) + 1.5 * label - 0.5
    return label, np.round(logit, decimals)


def weighted(label, logit, weight, boundary=0.0) -> dict[str, float]:
    values = bootstrap.WeightedScores(label, logit, boundary).score(weight)
    return dict(zip(metrics.NAMES, values.tolist(), strict=True))


def width(found: metrics.Scores, name: str) -> float:
    low, high = found["intervals"][name]
    return high - low


def test_weights_of_three_patches():
    label, logit = np.array([1, 0, 1]), np.array([3.0, 2, 1])
    found = weighted(label, logit, np.array([1, 2, 0]))
    assert (found["auc"], found["average_precision"]) == (1, 1)
    assert found["accuracy"] == pytest.approx(1 / 3)
    # The positive below both negatives loses two of four pairs.
    found = weighted(label, logit, np.array([1, 2, 1]))
    assert (found["auc"], found["average_precision"]) == (0.5, 0.75)
    assert found["sensitivity_at_95_specificity"] == 0.5


@pytest.mark.parametrize("decimals", [9, 1, -2], ids=["none", "many", "all"])
def test_weighted_scores_are_those_of_scikit_learn_with_ties(decimals):
    label, logit = predictions(300, decimals=decimals)
    weight = np.random.default_rng(1).poisson(1, 300)
    found = weighted(label, logit, weight, boundary=-0.4)
    probability = metrics.to_probability(logit)
    false, true, _ = sklearn_metrics.roc_curve(
        label, logit, sample_weight=weight, drop_intermediate=False
    )
    for name, expected in {
        "auc": sklearn_metrics.roc_auc_score(
            label, logit, sample_weight=weight
        ),
        "average_precision": sklearn_metrics.average_precision_score(
            label, logit, sample_weight=weight
        ),
        "sensitivity_at_95_specificity": true[false <= 0.05].max(),
        "accuracy": sklearn_metrics.accuracy_score(
            label, logit >= -0.4, sample_weight=weight
        ),
        "nll": sklearn_metrics.log_loss(
            label, probability, sample_weight=weight
        ),
        "brier": sklearn_metrics.brier_score_loss(
            label, probability, sample_weight=weight
        ),
    }.items():
        assert found[name] == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("decimals", [9, 1, 0])
def test_weights_count_as_repeated_patches(decimals):
    label, logit = predictions(400, seed=2, decimals=decimals)
    weight = np.random.default_rng(3).poisson(1, 400)
    expected = metrics.score(np.repeat(label, weight), np.repeat(logit, weight))
    found = weighted(label, logit, weight)
    for name in metrics.NAMES:
        assert found[name] == pytest.approx(expected[name], abs=1e-12), name


def test_weights_on_one_class_define_no_ranking():
    label, logit = predictions(20)
    found = weighted(label, logit, label)
    undefined = {name for name, value in found.items() if np.isnan(value)}
    assert undefined == set(metrics.RANKING_NAMES)


def test_intervals_are_percentiles_of_the_scores_of_resamples():
    label, logit = predictions(40)
    found = bootstrap.compute_intervals(
        label, logit, 0.0, num_resamples=60, seed=4
    )
    rng = np.random.default_rng(4)
    drawn = [rng.integers(40, size=40) for _ in range(60)]
    scores = [metrics.score(label[places], logit[places]) for places in drawn]
    for name in metrics.NAMES:
        values = [score[name] for score in scores]
        expected = np.percentile(values, (2.5, 97.5))
        assert found["intervals"][name] == pytest.approx(expected, abs=1e-12), (
            name
        )
    assert (found["resampled"], found["num_slides"]) == ("patches", None)


def test_intervals_are_the_same_for_the_same_seed():
    label, logit = predictions(50)

    def intervals(seed):
        return bootstrap.compute_intervals(
            label, logit, 0.0, num_resamples=50, seed=seed
        )

    assert intervals(1) == intervals(1)
    assert intervals(1) != intervals(2)


def test_copies_of_a_patch_on_its_slide_are_no_more_evidence():
    label, logit = predictions(60)
    alone = bootstrap.compute_intervals(label, logit, 0.0, num_resamples=200)
    slide = np.repeat([f"slide{number:02}" for number in range(60)], 9)
    copies = np.repeat(label, 9), np.repeat(logit, 9), 0.0
    clustered = bootstrap.compute_intervals(*copies, slide, num_resamples=200)
    naive = bootstrap.compute_intervals(*copies, num_resamples=200)
    assert clustered["resampled"] == "slides"
    assert clustered["num_slides"] == 60
    for name in metrics.NAMES:
        assert clustered["intervals"][name] == pytest.approx(
            alone["intervals"][name], abs=1e-12
        )
        assert width(naive, name) < width(clustered, name) / 2


def test_slides_that_differ_widen_the_intervals_of_all_scores():
    label, logit = predictions(3000, seed=5)
    slide = np.random.default_rng(6).integers(0, 30, 3000)
    logit = logit + np.random.default_rng(7).normal(size=30)[slide] * 2
    wide = bootstrap.compute_intervals(
        label, logit, 0.0, slide, num_resamples=200
    )
    narrow = bootstrap.compute_intervals(label, logit, 0.0, num_resamples=200)
    for name in ("auc", "accuracy", "nll", "brier", "ece"):
        assert width(wide, name) > 1.5 * width(narrow, name), name


def test_a_single_slide_has_no_intervals():
    label, logit = predictions(30)
    found = bootstrap.compute_intervals(label, logit, 0.0, np.full(30, "a"))
    assert set(found["intervals"]) == set(metrics.NAMES)
    assert not any(found["intervals"].values())
    assert (found["num_slides"], found["num_resamples"]) == (1, 0)


def test_no_resamples_no_intervals():
    label, logit = predictions(30)
    found = bootstrap.compute_intervals(label, logit, 0.0, num_resamples=0)
    assert not any(found["intervals"].values())


def test_resamples_of_one_class_are_left_out_and_counted():
    label = np.arange(200) < 5
    _, logit = predictions(200)
    found = bootstrap.compute_intervals(label, logit, 0.0)
    # No positive is drawn with probability (195 / 200) ** 200 = 0.6%.
    assert 1 <= found["num_one_class_resamples"] <= 15
    assert all(found["intervals"].values())


def test_many_resamples_of_one_class_leave_rankings_without_interval():
    slide = np.repeat(["a", "b", "c"], 10)
    _, logit = predictions(30)
    found = bootstrap.compute_intervals(
        (slide == "b").astype(int), logit, 0.0, slide
    )
    # All of b, or none: (1 + 8) / 27.
    assert (
        0.28 < found["num_one_class_resamples"] / found["num_resamples"] < 0.39
    )
    for name in metrics.NAMES:
        has_interval = found["intervals"][name] is not None
        assert has_interval == (name not in metrics.RANKING_NAMES), name


def test_intervals_of_patches_cover_the_true_auc():
    expected = statistics.NormalDist().cdf(1.5 / 2**0.5)
    num_covering = 0
    for seed in range(60):
        found = bootstrap.compute_intervals(
            *predictions(150, seed=seed), 0.0, num_resamples=100, seed=seed
        )
        low, high = found["intervals"]["auc"]
        num_covering += low <= expected <= high
    assert num_covering >= 53


def test_only_intervals_of_slides_cover_where_slides_differ():
    rng = np.random.default_rng(8)
    num_covering = {"slides": 0, "patches": 0}
    for _ in range(60):
        slide = np.repeat(np.arange(40), 10)
        share_right = rng.beta(2, 1, size=40)[slide]  # 2 / 3 in the mean.
        label = rng.integers(0, 2, 400)
        is_right = rng.random(400) < share_right
        logit = np.where(is_right == label, 1.0, -1.0)
        for drawn in (slide, None):
            found = bootstrap.compute_intervals(
                label, logit, 0.0, drawn, num_resamples=100
            )
            low, high = found["intervals"]["accuracy"]
            num_covering[found["resampled"]] += low <= 2 / 3 <= high
    assert num_covering["slides"] >= 53
    assert num_covering["patches"] < 50
