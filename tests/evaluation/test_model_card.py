"""A card tells of its network what the run folder's files say, and no more."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import yaml

from pcam_tfdata.evaluation import configuration as evaluation_configuration
from pcam_tfdata.evaluation import evaluate, model_card
from pcam_tfdata.models import group_conv  # noqa: F401
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import calibration_file, run_folder
from pcam_tfdata.training import configuration, steps, train

CODE = re.compile(r"```python\n(.*)```", re.DOTALL)


@pytest.fixture(scope="module")
def scored(records_dir, tmp_path_factory) -> dict[str, pathlib.Path]:
    """Runs of two networks, one with layers of its own, both scored."""
    home = tmp_path_factory.mktemp("scored")
    runs = {name: home / name for name in ("small_cnn", "p4m_cnn")}
    for name, run_dir in runs.items():
        train.train(
            configuration.TrainOptions(
                records_dir,
                str(run_dir),
                name,
                recipe=steps.Recipe(16),
                epochs=1,
            )
        )
        score(records_dir, run_dir)
    return runs


@pytest.fixture
def run_dir(scored, tmp_path) -> pathlib.Path:
    """That of the small network, for a test that changes it."""
    return shutil.copytree(scored["small_cnn"], tmp_path / "run")


def score(records_dir, run_dir: pathlib.Path, **changes) -> None:
    changes = {"num_resamples": 10} | changes
    evaluate.evaluate(
        evaluation_configuration.EvaluateOptions(
            records_dir, str(run_dir), **changes
        )
    )


def read_card(run_dir: pathlib.Path) -> str:
    return (run_dir / "model_card.md").read_text()


def read_head(card: str) -> dict:
    start, head, _ = re.split(r"^---\n", card, maxsplit=2, flags=re.M)
    assert start == ""
    return yaml.safe_load(head)


def write_again(run_dir: pathlib.Path) -> str:
    (run_dir / "model_card.md").unlink()
    model_card.write(str(run_dir))
    return read_card(run_dir)


@pytest.mark.parametrize("name", ["small_cnn", "p4m_cnn"])
def test_code_of_the_card_gives_the_calibrated_probability(scored, name):
    run_dir = scored[name]
    (code,) = CODE.findall(read_card(run_dir))
    assert len(code.splitlines()) == 5 + (name == "p4m_cnn")
    result = subprocess.run(
        [sys.executable, "-c", f"{code}print(float(probability[0, 0]))"],
        cwd=run_dir, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    model_path = str(run_dir / run_folder.BEST_MODEL)
    network = keras.saving.load_model(model_path)
    logit = network(np.zeros((1, 96, 96, 3), np.uint8)).numpy()
    known = json.loads((run_dir / run_folder.CALIBRATION).read_text())
    calibration = calibration_file.Calibration(**known["calibrations"]["none"])
    assert calibration != calibration_file.Calibration()
    expected = 1 / (1 + np.exp(-calibration.apply(logit)))
    assert float(result.stdout) == pytest.approx(expected.item(), rel=1e-4)


def test_head_has_the_scores_and_no_license_of_random_weights(scored):
    run_dir = scored["small_cnn"]
    head = read_head(read_card(run_dir))
    assert head["library_name"] == "keras"
    assert head["pipeline_tag"] == "image-classification"
    assert "license" not in head
    (entry,) = head["model-index"]
    assert entry["name"] == "small_cnn"
    (result,) = entry["results"]
    metrics = json.loads((run_dir / run_folder.METRICS_JSON).read_text())
    assert result["dataset"]["name"] == "fold0"
    assert result["dataset"]["revision"] == metrics["manifest_sha256"]
    values = {found["type"]: found["value"] for found in result["metrics"]}
    assert values["roc_auc"] == pytest.approx(metrics["auc"], abs=1e-6)
    assert values["ece"] == pytest.approx(metrics["ece"], abs=1e-6)


def test_body_has_data_intervals_and_calibration(scored, records_dir):
    run_dir = scored["small_cnn"]
    card = read_card(run_dir)
    metrics = json.loads((run_dir / run_folder.METRICS_JSON).read_text())
    content = records_folder.open_folder(records_dir).content
    for split in content.splits:
        row = f"| {split.name} | {'validation' if split.name == 'fold0' else 'train'} |"
        if split.labeled:
            positive = split.class_counts["1"]
            assert f"{row} {split.num_records} | {positive} |" in card
        else:
            assert row not in card
    assert "Splits were made: by slide." in card
    assert metrics["manifest_sha256"] in card
    low, high = metrics["intervals"]["nll"]
    assert f"| {metrics['nll']:.4f} | {low:.4f} to {high:.4f} |" in card
    for name in ("nll", "ece"):
        before, after = metrics[name], metrics[f"{name}_calibrated"]
        assert f"{before:.4f} before, {after:.4f} after" in card
    assert "Under stress: not measured." in card
    assert "Not a medical device" in card


def test_card_is_of_the_folder_alone_and_names_no_place(
    scored, records_dir, tmp_path
):
    run_dir = scored["small_cnn"]
    card = read_card(run_dir)
    moved = shutil.copytree(run_dir, tmp_path / "elsewhere")
    assert write_again(moved) == card
    assert records_dir not in card
    assert str(run_dir.parent) not in card


def test_other_scores_refresh_it_unless_they_go_elsewhere(
    records_dir, run_dir, tmp_path
):
    before = read_card(run_dir)
    score(
        records_dir, run_dir, splits=["fold1"], output_dir=str(tmp_path / "x")
    )
    assert read_card(run_dir) == before
    score(records_dir, run_dir, splits=["fold1"])
    score(records_dir, run_dir, stress=["jpeg"])
    card = read_card(run_dir)
    assert re.search(r"^- On fold1, .* was trained on fold1", card, re.M)
    assert re.search(
        r"^- Under stress: none 0.0 AUC .*jpeg 30.0 AUC", card, re.M
    )
    (entry,) = read_head(card)["model-index"]
    assert [r["dataset"]["name"] for r in entry["results"]] == ["fold0"]


def test_figures_of_an_earlier_network_are_left_out(scored, run_dir):
    shutil.copy(scored["p4m_cnn"] / run_folder.BEST_MODEL, run_dir)
    card = write_again(run_dir)
    assert "| AUC | not measured | not measured |" in card
    assert "NLL not measured before, not measured after" in card
    assert "logit / 1.0 + 0.0" in card
    assert "model-index" not in read_head(card)


def test_damaged_or_missing_files_are_not_measured(run_dir):
    (run_dir / run_folder.METRICS_JSON).write_text('{"splits": ')
    (run_dir / run_folder.ENVIRONMENT).unlink()
    (run_dir / run_folder.HISTORY).unlink()
    card = write_again(run_dir)
    assert "| AUC | not measured | not measured |" in card
    assert "Epoch not measured of not measured" in card
    assert "| fold0 | validation | not measured | not measured |" in card
    assert "Splits were made: not measured." in card


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["Apache-2.0"], "apache-2.0"),
        (["MIT", "MIT"], "mit"),
        (["MIT", "Apache-2.0"], None),
        ([""], None),
    ],
    ids=["one", "same", "different", "unknown"],
)
def test_license_is_that_of_all_pretrained_weights(run_dir, licenses, expected):
    path = run_dir / run_folder.ENVIRONMENT
    content = json.loads(path.read_text())
    (start,) = content["starts"]
    # As an ensemble has it.
    start["member_starts"] = [
        {
            "manifest_sha256": start["manifest_sha256"],
            "versions": start["versions"],
            "weights": {"source": "w.h5", "license": n, "sha256": f"{i}" * 64},
        }
        for i, n in enumerate(licenses)
    ]
    path.write_text(json.dumps(content))
    card = write_again(run_dir)
    assert read_head(card).get("license") == expected
    for number, name in enumerate(licenses):
        sha256 = f"{number}" * 64
        told = f"w.h5, license {name or 'not known'}, SHA-256 {sha256}."
        assert told in card
