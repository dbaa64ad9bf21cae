"""Scores the best model of a run, exactly.

Writes metrics.json, metrics.txt, predictions.csv, roc and confusion as PNG
and SVG; slides.csv, the scores of each slide, where slides are known. The run's folder has
those of its validation splits, and calibration.json, how pcam predict calibrates
logits; its folder evaluations/SPLITS those of others, and with @ and their hash
those of other records.
"""

from absl import app, flags

from pcam_tfdata import choices
from pcam_tfdata.cli import flag_groups, next_step, quiet
from pcam_tfdata.records import records_folder

REQUIRED_FLAGS = ("records_dir", "run_dir")

flag_groups.define_scored_splits()
flag_groups.define_threshold(
    0.5, "A calibrated probability at or above it predicts 1."
)
flag_groups.define_inference()
flags.DEFINE_string(
    "output_dir",
    None,
    "Where the files go. Default: the run's folder, or one in it: see above.",
)
flags.DEFINE_list(
    "stress",
    [],
    f"Also score patches that are changed more and more: {', '.join(choices.STRESSES)}."
    " Writes stress.csv, and a picture of it.",
)
flags.DEFINE_integer(
    "num_resamples",
    1000,
    "Bootstrap resamples behind the 95% intervals, of whole slides where slides"
    " are known, else of patches. 0: no intervals.",
    lower_bound=0,
)


def run() -> None:
    """Writes the scores and prints them."""
    if unknown := set(flags.FLAGS.stress) - set(choices.STRESSES):
        raise app.UsageError(
            f"--stress: found {', '.join(sorted(unknown))}, expected some of"
            f" {', '.join(choices.STRESSES)}."
        )
    with quiet.imports():
        from pcam_tfdata.evaluation import configuration, evaluate, score_page
    options = flag_groups.from_flags(configuration.EvaluateOptions)
    scores = evaluate.evaluate(options)
    print(score_page.format_scores(scores), end="")
    splits = records_folder.open_folder(options.records_dir).content.splits
    unlabeled = [split.name for split in splits if not split.labeled]
    if unlabeled and not scores["warnings"]:
        next_step.tell(
            "predict",
            f"--records_dir={options.records_dir}",
            f"--run_dir={options.run_dir}",
            f"--split={unlabeled[0]}",
            f"--tta={options.forward.tta}",
            f"--output_csv={options.run_dir.rstrip('/')}_submission.csv",
        )
