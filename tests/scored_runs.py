"""Folders of runs with made-up predictions, as `pcam evaluate` leaves them."""

import json
import pathlib

import numpy as np

from pcam_tfdata.records import manifest
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import csv_files


def write(
    run_dir: pathlib.Path, label, logit, slide=None, **facts
) -> pathlib.Path:
    """Writes predictions of fold0, of a network that nothing can load."""
    run_dir.mkdir(exist_ok=True)
    model = run_dir / run_folder.BEST_MODEL
    model.write_text(f"network {run_dir.name}")
    columns = {"row": np.arange(len(label)), "label": label, "logit": logit}
    if slide is not None:
        columns["slide"] = slide
    predictions = str(run_dir / run_folder.PREDICTIONS)
    rows = zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True)
    csv_files.write_csv(predictions, tuple(columns), rows)
    facts = {
        "splits": ["fold0"],
        "tta": "none",
        "num_slides": None if slide is None else len(set(slide)),
        "model_sha256": manifest.hash_file(str(model)),
        "manifest_sha256": "1" * 64,
        "predictions_sha256": manifest.hash_file(predictions),
    } | facts
    (run_dir / run_folder.METRICS_JSON).write_text(json.dumps(facts))
    return run_dir
