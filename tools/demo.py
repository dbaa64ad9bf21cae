"""`make demo`: the main job, from patches to a submission, in one go."""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys

from pcam_tfdata.sources import kaggle_layout

_ROOT = pathlib.Path(__file__).parents[1]
_DEMO = pathlib.Path(os.path.relpath(_ROOT / "demo"))
_FLAGFILE = os.path.relpath(_ROOT / "configs" / "demo.flags")
# With data of the user's own: folds of about this many patches, of which four
# train and one validates, so that the training is short whatever is there.
_FOLD_PATCHES = 1000
# Of its own patches, which every network that learns at all tells apart.
_LEAST_AUC = 0.9


def main() -> None:
    """Runs the demo in the folder `demo`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="", help="Kaggle's folder.")
    data = parser.parse_args().data
    source = pathlib.Path(data) if data else _DEMO / "kaggle"
    folds = f"--slide_csv={source}/truth.csv"
    if data:
        if source.resolve().is_relative_to(_DEMO.resolve()):
            sys.exit(f"{data}: lies in {_DEMO}, which the demo makes anew.")
        num_rows = _count_rows(source / kaggle_layout.LABELS_FILE)
        num_folds = max(5, num_rows // _FOLD_PATCHES)
        folds = f"--num_folds={num_folds}"
        print(
            f"On {data}, bounded to one short training: 4 of {num_folds} folds."
        )
    shutil.rmtree(_DEMO, ignore_errors=True)
    _DEMO.mkdir()
    if not data:
        _pcam("synthesize", f"--output_dir={source}", "--masks")
    records, run = f"--records_dir={_DEMO}/records", f"--run_dir={_DEMO}/run"
    kaggle, output = f"--input_dir={source}", f"--output_dir={_DEMO}/records"
    _pcam("convert_to_tfrecords", folds, kaggle, output)
    _pcam("inspect", records, f"--output_dir={_DEMO}/overview")
    _pcam("audit", records, f"--output_dir={_DEMO}/audit")
    train_splits = "--train_splits=fold1,fold2,fold3,fold4"
    _pcam("train", f"--flagfile={_FLAGFILE}", records, run, train_splits)
    _pcam("evaluate", records, run)
    masks = [] if data else [f"--mask_dir={source}/masks"]
    _pcam("explain", records, run, *masks)
    submission = _DEMO / "submission.csv"
    sample = f"--sample_submission={source / kaggle_layout.SAMPLE_FILE}"
    _pcam("predict", records, run, f"--output_csv={submission}", sample)
    report = _DEMO / "report.html"
    audit = f"--audit_dir={_DEMO}/audit"
    _pcam("report", records, run, audit, f"--output={report}")
    auc = json.loads((_DEMO / "run" / "metrics.json").read_text())["auc"]
    print(
        f"\nMade in {_DEMO}/:"
        "\n  records/         TFRecord shards, each patch checked; pcam verify checks them again"
        "\n  overview/        counts, label histogram and sample patches"
        "\n  audit/           leaks, duplicates and blank patches that were found"
        f"\n  run/             the trained network, its curves and scores: AUC {auc:.4f} on fold0"
        f"\n  submission.csv   {_count_rows(submission):,} probabilities in the order of {kaggle_layout.SAMPLE_FILE}"
    )
    if not data:  # A user's own may be hard.
        _check_auc(auc)
    print(f"\nThe report, to open in a browser:\n{report.resolve()}")


def _check_auc(auc: float) -> None:
    """Ends with exit code 1 where a network fails on the demo's own patches."""
    if auc < _LEAST_AUC:
        sys.exit(
            f"make demo: found AUC {auc:.4f} on fold0 of patches made up here,"
            f" expected at least {_LEAST_AUC}: the network did not learn. Please"
            " report it, with the processor."
        )


def _pcam(*arguments: str) -> None:
    print(f"\n$ pcam {' '.join(arguments)}", flush=True)
    code = subprocess.call([sys.executable, "-m", "pcam_tfdata", *arguments])
    if code:
        sys.exit(code)


def _count_rows(path: pathlib.Path) -> int:
    if not path.is_file():
        sys.exit(f"{path}: not found, expected Kaggle's folder. Check DATA=.")
    return len(path.read_text().splitlines()) - 1


if __name__ == "__main__":
    main()
