"""Scores say of which network they are, on which patches, and what ails them."""

import json
import os
import pathlib
import shutil

import keras
import loaded
import numpy as np
import pytest
from conftest import convert_folder

from pcam_tfdata.evaluation import (
    calibration,
    evaluate,
    metrics,
    operating_point,
)
from pcam_tfdata.evaluation import configuration as evaluation_configuration
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.runs import predictions_file, reading, run_folder
from pcam_tfdata.system import nested_options
from pcam_tfdata.training import configuration, steps, train


@pytest.fixture(scope="module")
def trained(records_dir, tmp_path_factory) -> pathlib.Path:
    """A run that has finished."""
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    train.train(
        configuration.TrainOptions(
            records_dir,
            str(run_dir),
            "small_cnn",
            recipe=steps.Recipe(16),
            epochs=1,
        )
    )
    return run_dir


@pytest.fixture
def run_dir(trained, tmp_path) -> pathlib.Path:
    """The same, for a test that adds to it."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def other_records_dir(shared_tree, tmp_path_factory) -> str:
    """The same patches, dealt in another way."""
    output_dir = str(tmp_path_factory.mktemp("other") / "records")
    convert_folder(shared_tree, output_dir, seed=9)
    return output_dir


def score(records_dir, run_dir, **changes) -> dict[str, object]:
    changes = {"num_resamples": 10} | changes
    return evaluate.evaluate(
        evaluation_configuration.EvaluateOptions(
            str(records_dir), str(run_dir), **changes
        )
    )


def read(folder) -> dict[str, object]:
    return json.loads((folder / run_folder.METRICS_JSON).read_text())


def content_of(folder) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file()
    }


def test_each_evaluation_is_kept_by_its_splits_and_records(
    records_dir, other_records_dir, run_dir
):
    score(records_dir, run_dir)
    before = content_of(run_dir)
    score(records_dir, run_dir, splits=("fold2", "fold1"))
    score(other_records_dir, run_dir)
    # What the run's folder tells is still of its own validation; but for the card,
    # which tells of all.
    after = content_of(run_dir)
    assert before.pop(run_folder.MODEL_CARD) != after.pop(run_folder.MODEL_CARD)
    assert after == before
    sha256 = records_folder.open_folder(other_records_dir).manifest_sha256
    folder = run_dir / run_folder.EVALUATIONS
    names = [f"fold0@{sha256[:8]}", "fold1+fold2"]
    assert sorted(os.listdir(folder)) == names
    of_others, of_trained = map(read, map(folder.joinpath, names))
    assert read(run_dir)["splits"] == ["fold0"]
    assert of_trained["splits"] == ["fold2", "fold1"]
    assert of_others["manifest_sha256"] == sha256
    assert of_others["records_dir"] == other_records_dir
    score(records_dir, run_dir, splits=("fold0",))  # Its own, by name.
    assert sorted(os.listdir(folder)) == names


def test_files_tell_network_records_and_warnings(
    records_dir, other_records_dir, run_dir, tmp_path
):
    score(records_dir, run_dir)
    found = read(run_dir)
    model = run_folder.find_model(str(run_dir))
    assert found["model_sha256"] == manifest.hash_file(model)
    assert (
        found["manifest_sha256"]
        == records_folder.open_folder(records_dir).manifest_sha256
    )
    predictions = str(run_dir / run_folder.PREDICTIONS)
    assert found["predictions_sha256"] == manifest.hash_file(predictions)
    assert found["warnings"] == []
    page = (run_dir / run_folder.METRICS_TEXT).read_text()
    assert f"Network {found['model_sha256'][:8]}, records " in page
    assert "Warning" not in page
    for records, splits, expected in (
        (records_dir, ("fold1", "fold0"), ["trained on fold1: these scores"]),
        (other_records_dir, ("fold0",), ["trained on other records than"]),
        (other_records_dir, ("fold3",), ["other records", "trained on fold3"]),
    ):
        output_dir = str(tmp_path / "scores")
        score(records, run_dir, splits=splits, output_dir=output_dir)
        warnings = read(tmp_path / "scores")["warnings"]
        page = (tmp_path / "scores" / run_folder.METRICS_TEXT).read_text()
        assert page.count("Warning: ") == len(warnings) == len(expected)
        for warning, words in zip(warnings, expected, strict=True):
            assert words in warning
            assert f"Warning: {warning}" in " ".join(page.split())


def test_folder_of_a_run_keeps_its_own_scores(records_dir, run_dir):
    score(records_dir, run_dir)
    before = content_of(run_dir)
    with pytest.raises(FileExistsError, match="keeps the scores of its own"):
        score(records_dir, run_dir, splits=("fold1",), output_dir=str(run_dir))
    assert content_of(run_dir) == before
    score(records_dir, run_dir, output_dir=str(run_dir))


@pytest.mark.parametrize("is_dead", [False, True])
def test_chance_on_other_patches_is_no_dead_network(run_dir, is_dead):
    history = run_dir / run_folder.HISTORY
    header, row = history.read_text().splitlines()
    assert header.endswith(f",{run_folder.IS_DEAD}") and row.endswith(",0")
    history.write_text(f"{header}\n{row[:-1]}{is_dead:d}\n")
    draw = np.random.default_rng(0)
    label = np.arange(2000) % 2
    logit = draw.normal(size=1000).repeat(2)  # Sure, and right by chance.
    run = reading.read_training(str(run_dir))
    assert run.is_best_dead == is_dead
    death = evaluate._find_death(label, logit, is_learning=not is_dead)
    assert (death is not None) == is_dead


def test_command_says_where_the_scores_of_other_splits_are(
    records_dir, run_dir
):
    arguments = [f"--records_dir={records_dir}", f"--run_dir={run_dir}"]
    result = loaded.run("evaluate", *arguments, "--splits=fold1")
    assert result.returncode == 0, result.stderr
    folder = run_dir / run_folder.EVALUATIONS / "fold1"
    assert f"Files of fold1 go to {folder}.\n" in result.stderr
    assert {"metrics.json", "roc.png", "confusion.png"} < set(
        os.listdir(folder)
    )
    assert not (run_dir / run_folder.METRICS_JSON).exists()


def test_a_network_alone_is_scored_where_splits_are_named(
    records_dir, trained, tmp_path
):
    shutil.copy(run_folder.find_model(str(trained)), tmp_path)
    arguments = [f"--records_dir={records_dir}", f"--run_dir={tmp_path}"]
    result = loaded.run("evaluate", *arguments)
    assert result.returncode == 1
    (told,) = result.stderr.splitlines()
    assert told.startswith("--splits: found none, and no flags.txt in")
    assert os.listdir(tmp_path) == [run_folder.BEST_MODEL]
    result = loaded.run("evaluate", *arguments, "--splits=fold0")
    assert result.returncode == 0, result.stderr
    (name,) = os.listdir(tmp_path / run_folder.EVALUATIONS)
    found = read(tmp_path / run_folder.EVALUATIONS / name)
    assert found["auc"] == score(records_dir, trained)["auc"]
    (warning,) = found["warnings"]
    assert "no file of the run tells on which records" in warning


def change_network(run_dir) -> None:
    path = run_folder.find_model(str(run_dir))
    model = keras.models.load_model(path)
    model.layers[-1].bias.assign_add([1.0])
    model.save(path)


def marks_of(run_dir) -> dict[str, object]:
    found = reading.read_run(str(run_dir), "r").columns
    return {
        name.removeprefix("eval_mark"): mark
        for name, mark in found.items()
        if name.startswith("eval_mark")
    }


def test_scores_of_an_earlier_network_are_marked_in_the_table(
    records_dir, other_records_dir, run_dir
):
    score(records_dir, run_dir)
    score(records_dir, run_dir, splits=("fold1",))
    name = f":fold0@{records_folder.open_folder(other_records_dir).manifest_sha256[:8]}"
    score(other_records_dir, run_dir)
    assert marks_of(run_dir) == {
        "": "", ":fold1": "trained on", name: "other records",
    }  # fmt: skip
    change_network(run_dir)
    score(records_dir, run_dir, splits=("fold1",))
    assert marks_of(run_dir) == {
        "": "stale", ":fold1": "trained on", name: "stale, other records",
    }  # fmt: skip
    notes = reading.read_run(str(run_dir), "r").notes
    assert notes[0] == (
        "metrics.json: scores of an earlier best.keras, evaluate again"
    )
    result = loaded.run("runs", f"--runs_dir={run_dir}")
    header, line, *told = result.stdout.splitlines()
    assert "eval_mark" in header and "eval_auc:fold1" in header
    assert "stale" in line
    assert f".: {notes[0]}" in told[0]


def test_run_that_goes_on_is_told_from_one_that_stopped_early(
    records_dir, tmp_path
):
    def options(**changes):
        # It has no moving statistics, which a rate of 0 would not stop.
        values = {
            "records_dir": records_dir, "run_dir": str(tmp_path / "run"),
            "model": "seed_cnn", "batch_size": 16,
        }  # fmt: skip
        return nested_options.fill(configuration.TrainOptions, values | changes)

    train.train(options(epochs=1))
    flags = tmp_path / "run" / run_folder.FLAGS
    text = flags.read_text()
    flags.write_text(text.replace("--epochs=1\n", "--epochs=50\n"))
    (warning,) = score(records_dir, tmp_path / "run")["warnings"]
    assert warning.startswith("the run has not finished (epoch 1 of 50)")
    assert reading.read_run(str(tmp_path / "run"), "").columns["epoch"] == 1

    stopping = {"learning_rate": 0.0, "early_stopping_patience": 2}
    result = train.train(options(epochs=50, restart=True, **stopping))
    assert result.epoch == 3
    progress = reading.read_run(str(tmp_path / "run"), "").columns
    assert (progress["state"], progress["epoch"]) == ("finished", 3)
    assert score(records_dir, tmp_path / "run")["warnings"] == []


def read_calibration(run_dir) -> dict[str, object]:
    path = run_dir / run_folder.CALIBRATION
    content = json.loads(path.read_text())
    return content | content["calibrations"]["none"]


def test_calibration_is_that_of_the_last_look_at_validation(
    records_dir, run_dir, tmp_path
):
    of_training = read_calibration(run_dir)
    model = run_folder.find_model(str(run_dir))
    assert of_training["model_sha256"] == manifest.hash_file(model)
    found = score(records_dir, run_dir, output_dir=str(tmp_path / "scores"))
    assert read_calibration(run_dir) == of_training
    assert found["temperature"] == pytest.approx(
        of_training["temperature"], rel=0.01
    )
    found = score(records_dir, run_dir)
    kept = read_calibration(run_dir)
    for name in ("temperature", "intercept"):
        assert kept[name] == found[name], name
    for name in (
        "temperature",
        "intercept",
        "nll_calibrated",
        "ece_calibrated",
        "nll",
    ):
        assert found[name] == read(run_dir)[name], name
    predictions = predictions_file.read(str(run_dir))
    assert len(set(predictions.slide)) == found["num_slides"]
    cross_fitted = calibration.cross_fit(
        predictions.label, predictions.logit, predictions.slide
    )
    assert found["nll_calibrated"] == pytest.approx(
        metrics.nll(predictions.label, cross_fitted)
    )


def test_other_splits_take_the_kept_calibration(records_dir, run_dir):
    kept = read_calibration(run_dir)
    found = score(records_dir, run_dir, splits=("fold1",))
    folder = run_dir / run_folder.EVALUATIONS / "fold1"
    label, logit = np.loadtxt(
        folder / run_folder.PREDICTIONS, delimiter=",", skiprows=1,
        usecols=(1, 2), unpack=True,
    )  # fmt: skip
    assert found["temperature"] == kept["temperature"]
    assert found["intercept"] == kept["intercept"] != 0
    assert found["nll_calibrated"] == pytest.approx(
        metrics.nll(label, logit / kept["temperature"] + kept["intercept"])
    )
    assert read_calibration(run_dir) == kept
    change_network(run_dir)
    found = score(records_dir, run_dir, splits=("fold1",))
    assert found["temperature"] is found["nll_calibrated"] is None


def test_a_part_of_what_calibrated_a_network_is_not_scored_calibrated(
    records_dir, run_dir
):
    flags = run_dir / run_folder.FLAGS
    flags.write_text(
        flags.read_text().replace(
            "--validation_splits=fold0", "--validation_splits=fold0,fold1"
        )
    )
    found = score(records_dir, run_dir, splits=("fold0",))
    assert found["temperature"] == read_calibration(run_dir)["temperature"]
    assert found["nll_calibrated"] is found["ece_calibrated"] is None
    folder = run_dir / run_folder.EVALUATIONS / "fold0"
    assert "alibrated" not in (folder / run_folder.METRICS_TEXT).read_text()


def test_threshold_of_a_rate_is_that_of_own_validation(records_dir, run_dir):
    wanted = operating_point.Wanted("sensitivity", 0.8)
    (run_dir / run_folder.METRICS_JSON).unlink(missing_ok=True)
    with pytest.raises(
        FileNotFoundError, match="Run pcam evaluate --tta=none on"
    ):
        score(records_dir, run_dir, splits=("fold1",), threshold=wanted)
    own = score(records_dir, run_dir, threshold=wanted)
    label, logit = predictions_file.read(str(run_dir))[2:4]
    probability = metrics.to_probability(
        logit / own["temperature"] + own["intercept"]
    )
    assert own["threshold"] == operating_point.choose_threshold(
        wanted, label, probability
    )
    (_, missed), (_, right) = zip(*own["confusion_matrix"], strict=True)
    assert right == np.ceil(0.8 * (right + missed))
    other = score(records_dir, run_dir, splits=("fold1",), threshold=wanted)
    assert other["threshold"] == own["threshold"]
    command = ["evaluate", f"--records_dir={records_dir}"]
    command += [f"--run_dir={run_dir}", "--threshold=sensitivity:2"]
    result = loaded.run(*command)
    assert result.returncode == 2
    assert "found 'sensitivity:2', expected a probability," in result.stderr


def test_stress_is_told_beside_the_scores_of_patches_as_they_are(
    records_dir, run_dir
):
    found = score(records_dir, run_dir, stress=("brightness",))
    first, *rows = (run_dir / run_folder.STRESS).read_text().splitlines()
    assert first == "shift,strength,auc,nll"
    shifts = [row.split(",")[0] for row in rows]
    assert shifts == ["none", *["brightness"] * 4]
    assert rows[0] == f"none,0.0,{found['auc']},{found['nll']}"
    assert len(set(rows)) == 5
    assert (run_dir / run_folder.STRESS_PLOT).is_file()
    score(records_dir, run_dir)  # Of another evaluation they would be.
    assert not (run_dir / run_folder.STRESS).exists()
    command = ["evaluate", f"--records_dir={records_dir}"]
    command += [f"--run_dir={run_dir}", "--stress=stain,fog"]
    result = loaded.run(*command)
    assert result.returncode == 2
    assert "--stress: found fog, expected some of stain," in result.stderr
