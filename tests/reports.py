"""Pages about runs, made from predictions that are made up."""

import json
import pathlib

import numpy as np
import scored_runs

from pcam_tfdata.records import records_folder
from pcam_tfdata.report import page
from pcam_tfdata.runs import run_folder


def write_run(
    run_dir: pathlib.Path, records_dir: str, *, noise: float = 1.0, **facts
) -> pathlib.Path:
    """Writes a run of small folds, trained on all but fold0 and scored there."""
    records = records_folder.open_folder(records_dir)
    table = records.read_sidecar(["split", "label", "slide"])
    table = table[table["split"] == "fold0"]
    label = table["label"].to_numpy(int)
    rng = np.random.default_rng(len(run_dir.name))
    logit = 3 * label - 1 + noise * rng.normal(size=len(label))
    logit[0] = 0.3  # Its probability is 0.5, whose text is short.
    slide = (
        None if (table["slide"] == "").any() else table["slide"].to_numpy(str)
    )
    scored_runs.write(
        run_dir, label, logit, slide, manifest_sha256=records.manifest_sha256,
        temperature=1.5, intercept=-0.2,
        intervals={"auc": [0.8, 1.0]}, **facts,
    )  # fmt: skip
    flags = {
        "model": "small_cnn", "train_splits": "fold1,fold2,fold3,fold4",
        "validation_splits": "fold0", "epochs": 2, "seed": noise,
    }  # fmt: skip
    run_folder.write_flags(str(run_dir), flags)
    (run_dir / run_folder.HISTORY).write_text(
        "epoch,step,learning_rate,loss,accuracy,val_loss,val_accuracy,val_auc\n"
        "1,10,0.001,0.6,0.7,0.6,0.7,0.8\n2,20,0.001,0.5,0.8,0.5,0.8,0.9\n"
    )
    (run_dir / run_folder.TIMING).write_text(
        "epoch,train_seconds,validation_seconds,train_patches_per_second\n"
        "1,1.0,0.1,100.0\n"
    )
    start = {
        "manifest_sha256": records.manifest_sha256,
        "versions": {"keras": "3.15.1"}, "devices": ["CPU:0"],
    }  # fmt: skip
    content = json.dumps({"starts": [start]})
    (run_dir / run_folder.ENVIRONMENT).write_text(content)
    return run_dir


def write_page(
    output: pathlib.Path, records_dir: str, *run_dirs, **options
) -> str:
    """Writes a page; returns its text."""
    runs = [str(run_dir) for run_dir in run_dirs]
    page.write(str(output), records_dir=records_dir, run_dirs=runs, **options)
    return output.read_text()
