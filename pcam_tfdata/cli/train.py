"""Trains a network on a records folder; the same command again resumes.

An epoch ends with exact scores on the validation splits. The run folder keeps
the best model, the scores, the flags and the environment.
"""

import os

from absl import flags

from pcam_tfdata import choices
from pcam_tfdata.cli import options, quiet

REQUIRED_FLAGS = ("records_dir", "run_dir")

flags.DEFINE_string("records_dir", None, "Records folder.")
flags.DEFINE_string("run_dir", None, "Folder of the run, to make or resume.")
flags.DEFINE_enum("model", "seed_cnn", choices.MODELS, "Network.")
flags.DEFINE_enum(
    "strategy",
    "one_device",
    choices.STRATEGIES,
    "One device, or a replica on each GPU.",
)
flags.DEFINE_enum(
    "precision",
    "auto",
    choices.PRECISIONS,
    "Of the computation; auto: half where every GPU has it, else float32.",
)
flags.DEFINE_integer(
    "batch_size", 1024, "Patches a step, over all replicas.", lower_bound=1
)
flags.DEFINE_integer("epochs", 20, "Times each patch is seen.", lower_bound=1)
flags.DEFINE_enum("optimizer", "adam", choices.OPTIMIZERS, "Optimizer.")
flags.DEFINE_float(
    "learning_rate",
    0.001,
    "For the mean loss of the batch.",
    lower_bound=0,
    upper_bound=1e3,
)
flags.DEFINE_list(
    "train_splits", [], "Default: all labelled ones not validated on."
)
flags.DEFINE_list("validation_splits", ["fold0"], "Splits to score.")
flags.DEFINE_integer(
    "seed",
    0,
    "Of weights, order and dropout.",
    lower_bound=0,
    upper_bound=(1 << 32) - 1,
)
options.define_input()
flags.DEFINE_integer(
    "input_threads",
    0,
    "Threads that prepare batches. 0: as many as they can use.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "check_crc",
    "first_epoch",
    choices.CRC_CHECKS,
    "When mmap and device look at the CRC of a record; stream always does.",
)
flags.DEFINE_integer(
    "shuffle_megabytes", 128, "Shuffle buffer of stream.", lower_bound=1
)
flags.DEFINE_enum(
    "cache",
    "none",
    choices.CACHES,
    "Where stream keeps records from the first epoch on. The file is in the"
    " run's folder while it trains.",
)
flags.DEFINE_integer(
    "num_virtual_devices",
    0,
    "Splits the CPU into as many devices, to try several replicas.",
    lower_bound=0,
)
flags.DEFINE_bool("allow_cpu", False, "Let --strategy=mirrored use the CPU.")
flags.DEFINE_bool("restart", False, "Begin anew, dropping the run there.")


def run() -> None:
    """Trains as the flags say."""
    with quiet.imports():
        from pcam_tfdata import report, run_files, train, train_options
    trained = options.from_flags(train_options.TrainOptions)
    result = train.train(trained)
    run_dir = trained.run_dir
    report.plot_history(
        os.path.join(run_dir, run_files.HISTORY),
        os.path.join(run_dir, run_files.HISTORY_PLOT),
    )
    print(
        f"{run_dir}: {result['epoch']} epochs; best validation AUC"
        f" {result['best_val_auc']:.4f} after epoch {result['best_epoch']}."
    )
