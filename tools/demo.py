"""`make demo`: the main job, from patches to a submission, in one go."""

import argparse
import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys

_ROOT = pathlib.Path(__file__).parents[1]
_DEMO = pathlib.Path(os.path.relpath(_ROOT / "demo"))
_FLAGFILE = os.path.relpath(_ROOT / "configs" / "demo.flags")
# With data of the user's own: folds of about this many patches, of which four
# train and one validates, so that the training is short whatever is there.
_FOLD_PATCHES = 1000
_TRAIN_SPLITS = "fold1,fold2,fold3,fold4"
# Of its own patches, which every network that learns at all tells apart.
_LEAST_AUC = 0.9


def main() -> None:
    """Runs the demo in the folder `demo`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="Kaggle's folder.")
    data = parser.parse_args().data
    source = pathlib.Path(data) if data else _DEMO / "kaggle"
    if data:
        if source.resolve().is_relative_to(_DEMO.resolve()):
            sys.exit(f"{data}: lies in {_DEMO}, which the demo makes anew.")
        num_rows = _count_rows(source / "train_labels.csv")
        num_folds = max(5, num_rows // _FOLD_PATCHES)
        convert_flags = [f"--num_folds={num_folds}"]
        print(
            f"On {data}, bounded to one short training: 4 of {num_folds} folds."
        )
    else:
        convert_flags = [f"--slide_csv={source / 'truth.csv'}"]
    shutil.rmtree(_DEMO, ignore_errors=True)
    _DEMO.mkdir()
    if not data:
        _pcam("synthesize", f"--output_dir={source}")
    records, run = _DEMO / "records", _DEMO / "run"
    _pcam(
        "convert_to_tfrecords",
        f"--input_dir={source}",
        f"--output_dir={records}",
        *convert_flags,
    )
    _pcam(
        "inspect",
        f"--records_dir={records}",
        f"--output_dir={_DEMO / 'overview'}",
    )
    both = (f"--records_dir={records}", f"--run_dir={run}")
    _pcam(
        "train",
        f"--flagfile={_FLAGFILE}",
        *both,
        f"--train_splits={_TRAIN_SPLITS}",
    )
    _pcam("evaluate", *both)
    submission = _DEMO / "submission.csv"
    sample = source / "sample_submission.csv"
    _pcam(
        "predict",
        *both,
        f"--output_csv={submission}",
        f"--sample_submission={sample}",
    )
    scores = json.loads((run / "metrics.json").read_text())
    print(
        f"\nMade in {_DEMO}/:"
        "\n  records/         TFRecord shards, each patch checked; pcam verify checks them again"
        "\n  overview/        counts, label histogram and sample patches"
        f"\n  run/             the trained network, its curves and scores: AUC {scores['auc']:.4f} on fold0"
        f"\n  submission.csv   {_count_rows(submission):,} probabilities in the order of sample_submission.csv"
    )
    _check_auc(scores["auc"], data)


def _check_auc(auc: float, data: str) -> None:
    """Ends with exit code 1 where a network fails on the demo's own patches."""
    if auc >= _LEAST_AUC:
        return
    found = f"AUC {auc:.4f} on fold0 of {data or 'patches made up here'}"
    if not data:
        sys.exit(
            f"make demo: found {found}, expected at least {_LEAST_AUC}: the"
            " network did not learn. Please report it, with the processor."
        )
    print(
        f"Warning: found {found}, below {_LEAST_AUC}: train for longer, as"
        " configs/seed_cnn.flags does.",
        file=sys.stderr,
    )


def _pcam(command: str, *arguments: str) -> None:
    print(f"\n$ pcam {command} {' '.join(arguments)}", flush=True)
    result = subprocess.run(
        [sys.executable, "-m", "pcam_tfdata", command, *arguments]
    )
    if result.returncode:
        sys.exit(result.returncode)


def _count_rows(path: pathlib.Path) -> int:
    if not path.is_file():
        sys.exit(f"{path}: not found, expected Kaggle's folder. Check DATA=.")
    with open(path, newline="") as file:
        return sum(1 for row in csv.reader(file)) - 1


if __name__ == "__main__":
    main()
