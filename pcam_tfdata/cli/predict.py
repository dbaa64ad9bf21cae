"""Writes a submission CSV, `id,label`, with the best model of a run.

Labels are probabilities, which is what an AUC wants, unless --threshold is given.
From records a killed job leaves the shards that it finished in OUTPUT_CSV.parts;
the same command again goes on with the others. With --shard_range any number of
jobs do some shards each, and --merge writes the CSV.
"""

import logging

from absl import app, flags

from pcam_tfdata.cli import flag_groups, quiet
from pcam_tfdata.system import files

REQUIRED_FLAGS = ("run_dir", "output_csv")
_logger = logging.getLogger(__name__)

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
flag_groups.define_inference()
flag_groups.define_threshold(
    None, "Write 1 for a probability at or above it, else 0."
)
flags.DEFINE_bool(
    "calibrated",
    True,
    "Calibrate logits as the run's validation splits say: by a temperature and an"
    " intercept, so the order of patches stays.",
)
flags.DEFINE_bool(
    "with_fraction",
    False,
    "Add a column: the share of tumor in the centre, of a network trained with"
    " --head=fraction or noisy_or. A killed job keeps no parts then.",
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


_OF_WHOLE_JOBS = ("input_dir", "restart")
# Flags that make no sense beside a flag.
_EXCLUDED = {
    "records_dir": ("follow_symlinks", "check_ids", "on_bad_patch"),
    "with_fraction": ("shard_range", "merge"),
    "shard_range": ("threshold", "sample_submission", "merge", *_OF_WHOLE_JOBS),
    "merge": _OF_WHOLE_JOBS,
    "runner": ("shard_range", "merge", "with_fraction", *_OF_WHOLE_JOBS),
}


def run() -> None:
    """Predicts what the flags name."""
    _check_flags()
    with quiet.imports():
        from pcam_tfdata.prediction import (
            beam_prediction,
            configuration,
            predict,
        )
    predicted = flag_groups.from_flags(configuration.PredictOptions)
    output = predicted.output_csv
    if flags.FLAGS.merge:
        num_patches = predict.merge(predicted)
    elif flags.FLAGS.runner == "beam":
        num_patches = beam_prediction.predict_records(
            predicted, flags.FLAGS.beam_options
        )
    else:
        num_patches = predict.predict(predicted)
        if predicted.shard_range:
            output = predicted.parts_dir
    # A pipe may be stdout itself, where the CSV is.
    tell = _logger.info if files.is_stream(output) else print
    tell(f"{output}: {num_patches:,} patches.")


def _check_flags() -> None:
    """Refuses flags that make no sense together."""
    if (flags.FLAGS.records_dir is None) == (flags.FLAGS.input_dir is None):
        raise app.UsageError(
            "expected one of --records_dir and --input_dir, found both or none."
        )
    if flags.FLAGS.beam_options and flags.FLAGS.runner == "local":
        raise app.UsageError("found --beam_options, expected --runner=beam.")
    for flag in filter(_is_given, _EXCLUDED):
        for other in filter(_is_given, _EXCLUDED[flag]):
            raise app.UsageError(
                f"found --{flag} with --{other}, expected one of them alone:"
                " see --help."
            )


def _is_given(name: str) -> bool:
    """Returns whether a flag is there, and not to say that something is off."""
    flag = flags.FLAGS[name]
    is_off = flag.value is False or (name, flag.value) == ("runner", "local")
    return bool(flag.present) and not is_off
