"""Predictions that are read back, and those that say nothing of the network."""

import json

import numpy as np
import pytest
import scored_runs

from pcam_tfdata.records import manifest
from pcam_tfdata.runs import predictions_file, run_folder

LABEL, LOGIT = [0, 1, 1], [0.1, np.float32(1 / 3), -2.5]


def test_predictions_come_back_by_row(tmp_path):
    run_dir = scored_runs.write(tmp_path / "a", LABEL, LOGIT, ["NA", "01", "1"])
    path = run_dir / run_folder.PREDICTIONS
    found = predictions_file.read(str(run_dir), "none")
    assert found.row.tolist() == [0, 1, 2]
    assert found.label.tolist() == LABEL
    assert found.logit.tolist() == LOGIT
    assert found.slide.tolist() == ["NA", "01", "1"]
    # As splits in another order leave them.
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([header, *lines[::-1]]))
    change(run_dir, predictions_sha256=manifest.hash_file(str(path)))
    assert predictions_file.read(str(run_dir)).label.tolist() == LABEL


def change(run_dir, **facts) -> None:
    path = run_dir / run_folder.METRICS_JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def append(run_dir, name) -> None:
    with open(run_dir / name, "a") as file:
        file.write("3,1,0.5\n")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda d: (d / "best.keras").unlink(), "best.keras: not found"),
        (lambda d: (d / "metrics.json").unlink(), "metrics.json: not found"),
        (lambda d: (d / "predictions.csv").unlink(), "predictions.csv: not f"),
        (lambda d: append(d, "metrics.json"), "found no scores .JSONDecodeE"),
        (lambda d: (d / "metrics.json").write_text("[]"), "no scores .TypeErr"),
        (lambda d: append(d, "best.keras"), "found predictions of an earlier"),
        (lambda d: append(d, "predictions.csv"), "found predictions of another e"),
        (lambda d: change(d, tta="d4"), "other views: d4, expected none"),
    ],
    ids=["no_model", "no_scores", "no_predictions", "cut", "other_form",
         "stale", "other_predictions", "other_views"],
)  # fmt: skip
def test_predictions_of_another_network_or_views_are_refused(
    tmp_path, spoil, told
):
    run_dir = scored_runs.write(tmp_path / "a", LABEL, LOGIT)
    spoil(run_dir)
    with pytest.raises((FileNotFoundError, ValueError), match=told) as error:
        predictions_file.read(str(run_dir), "none")
    assert "\n" not in str(error.value)
