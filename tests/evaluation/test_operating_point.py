"""Operating points of runs, and thresholds against all that there are."""

import dataclasses
import logging

import numpy as np
import pandas
import pytest
import scored_runs

from pcam_tfdata.evaluation import calibration, metrics, operating_point
from pcam_tfdata.models import inference
from pcam_tfdata.prediction import configuration, submission
from pcam_tfdata.runs import calibration_file, predictions_file, run_folder

LABEL = np.arange(60) % 2
LOGIT = (3 * np.random.default_rng(0).normal(size=60) + LABEL).astype("f4")


@pytest.fixture
def run_dir(tmp_path):
    """A run that was scored, with its calibration."""
    run_dir = scored_runs.write(tmp_path / "run", LABEL, LOGIT)
    facts = predictions_file.read(str(run_dir)).facts
    fitted = calibration.fit(LABEL, LOGIT)
    calibration_file.write(str(run_dir), "none", facts["model_sha256"], fitted)
    return run_dir


def read(run_dir, **changes) -> operating_point.OperatingPoint:
    options = configuration.PredictOptions(str(run_dir), "out.csv", **changes)
    return options.read_point()


def test_calibration_is_that_of_the_run(run_dir):
    expected = calibration.fit(LABEL, LOGIT)
    assert expected.temperature > 1.5
    assert read(run_dir) == (expected, None)
    assert read(run_dir, threshold=0.3) == (expected, 0.3)
    assert read(run_dir, calibrated=False, threshold=0.3) == (None, 0.3)


@pytest.mark.parametrize("calibrated", [True, False])
def test_threshold_of_a_rate_is_chosen_on_validation(run_dir, calibrated):
    wanted = operating_point.Wanted("sensitivity", 0.9)
    found = read(run_dir, calibrated=calibrated, threshold=wanted)
    assert (found.calibration is None) == (not calibrated)
    logit = found.calibration.apply(LOGIT) if calibrated else LOGIT
    probability = metrics.to_probability(logit)
    is_positive = probability >= found.threshold
    assert is_positive[LABEL == 1].sum() == 27  # Of 30.


@pytest.mark.parametrize("is_there", [True, False])
def test_one_line_tells_that_probabilities_are_not_calibrated(
    run_dir, tmp_path, caplog, is_there
):
    caplog.set_level(logging.INFO, "pcam_tfdata")
    if is_there:
        (run_dir / run_folder.BEST_MODEL).write_text("another network")
    else:
        (run_dir / run_folder.CALIBRATION).unlink()
    output_csv = str(tmp_path / "out.csv")
    for calibrated in (True, False):
        options = configuration.PredictOptions(
            str(run_dir), output_csv, calibrated=calibrated
        )
        found = options.read_point()
        assert found == (None, None)
        rows = pandas.Series(["a", "b"])
        submission.write(options, found, rows, {"logit": LOGIT[:2]})
    (line,) = caplog.messages
    assert line.startswith(f"{output_csv}: probabilities are not calibrated")


def test_a_calibration_of_other_views_is_not_taken(run_dir):
    views = dataclasses.replace(inference.InferenceOptions(), tta="d4")
    assert read(run_dir, forward=views).calibration is None
    with pytest.raises(ValueError, match="other views: none, expected d4"):
        wanted = operating_point.Wanted("specificity", 0.9)
        read(run_dir, forward=views, threshold=wanted)


def make_predictions(decimals: int) -> tuple[np.ndarray, np.ndarray]:
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
    label, logit = make_predictions(decimals)
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
