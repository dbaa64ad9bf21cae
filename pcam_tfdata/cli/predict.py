"""Writes a submission CSV, `id,label`, with the best model of a run.

Labels are probabilities, which is what an AUC wants, unless --threshold is given.
From records a killed job leaves the shards that it finished in OUTPUT_CSV.parts;
the same command again goes on with the others. With --shard_range any number of
jobs do some shards each, and --merge writes the CSV.
"""

import sys

from absl import app, flags

from pcam_tfdata.cli import flag_groups, quiet
from pcam_tfdata.system import files

REQUIRED_FLAGS = ("run_dir", "output_csv")

flags.DEFINE_string("run_dir", None, "Folder of the run.")
flags.DEFINE_string(
    "output_csv", None, "File to write, whole or not at all; or a pipe."
)
flags.DEFINE_string("records_dir", None, "Records folder.")
flags.DEFINE_string(
    "input_dir", None, "Instead of records: Kaggle's folder, read as it is."
)
flag_groups.define_checks("skip leaves them out. With --input_dir.")
flags.DEFINE_string("split", "test", "Split of the records or of the folder.")
flags.DEFINE_integer(
    "batch_size",
    512,
    "Patches a pass, over all replicas; rounded up to share evenly.",
    lower_bound=1,
)
flag_groups.define_input()
flag_groups.define_devices()
flags.DEFINE_float(
    "threshold",
    None,
    "Write 1 for a probability at or above it, else 0.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_bool(
    "allow_equal_probabilities",
    False,
    "Do not warn where all probabilities are equal, as a network that learned"
    " nothing gives them.",
)
flags.DEFINE_string(
    "sample_submission",
    None,
    "CSV whose ids, in its order, the output must have.",
)
flags.DEFINE_bool(
    "restart", False, "Begin anew, dropping what a killed job left."
)
flags.DEFINE_string(
    "shard_range",
    None,
    "a:b: predict only shards a to b - 1 of the split, counted from 0. Their"
    " parts stay for --merge.",
)
flags.DEFINE_bool(
    "merge", False, "Predict nothing; write the CSV once every part is there."
)
flag_groups.define_runner(
    "beam: on the workers of Apache Beam, which see the same disk. See"
    " docs/beam.md."
)


def run() -> None:
    """Predicts what the flags name."""
    if (flags.FLAGS.records_dir is None) == (flags.FLAGS.input_dir is None):
        raise app.UsageError(
            "expected one of --records_dir and --input_dir, found both or none."
        )
    _check_flags()
    with quiet.imports():
        from pcam_tfdata.prediction import (
            beam_prediction,
            configuration,
            predict,
        )
    predicted = flag_groups.from_flags(configuration.PredictOptions)
    if predicted.shard_range:
        num_patches = predict.predict_range(predicted)
        print(f"{predicted.parts_dir}: {num_patches:,} patches.")
        return
    if flags.FLAGS.merge:
        num_patches = predict.merge(predicted)
    elif flags.FLAGS.runner == "beam":
        num_patches = beam_prediction.predict_records(
            predicted, flags.FLAGS.beam_options
        )
    else:
        num_patches = predict.predict(predicted)
    # A pipe may be stdout itself, where the CSV is.
    file = sys.stderr if files.is_stream(predicted.output_csv) else sys.stdout
    print(f"{predicted.output_csv}: {num_patches:,} patches.", file=file)


def _check_flags() -> None:
    """Refuses flags that make no sense together."""
    for name in ("follow_symlinks", "check_ids", "on_bad_patch"):
        if flags.FLAGS[name].present and flags.FLAGS.input_dir is None:
            raise app.UsageError(
                f"found --{name} with --records_dir, expected it with"
                " --input_dir alone: the patches of records were checked when"
                " they were converted."
            )
    on_beam = flags.FLAGS.runner == "beam"
    if flags.FLAGS.beam_options and not on_beam:
        raise app.UsageError("found --beam_options, expected --runner=beam.")
    by_record = ("input_dir", "restart")
    for flag, is_given, others, expected in (
        ("shard_range", _is_given("shard_range"),
         ("merge", "threshold", "sample_submission", *by_record),
         "one of them alone: see --help"),
        ("merge", _is_given("merge"), by_record,
         "one of them alone: see --help"),
        ("runner=beam", on_beam, ("shard_range", "merge", *by_record),
         "neither: all of a split of --records_dir is predicted there"),
    ):  # fmt: skip
        for other in filter(_is_given, others if is_given else ()):
            raise app.UsageError(
                f"found --{flag} with --{other}, expected {expected}."
            )


def _is_given(name: str) -> bool:
    """Returns whether a flag has a value, which may be 0."""
    value = flags.FLAGS[name].value
    return value is not None and value is not False
