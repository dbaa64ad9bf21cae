"""Trains a network on a records folder; the same command again resumes.

An epoch ends with exact scores on the validation splits. The run folder keeps
the best model, the scores, the flags and the environment.
"""

import os

from absl import flags

from pcam_tfdata import choices
from pcam_tfdata.cli import flag_groups, next_step, quiet
from pcam_tfdata.distribution import tf_config

REQUIRED_FLAGS = ("records_dir", "run_dir")

flags.DEFINE_string("records_dir", None, "Records folder.")
flags.DEFINE_string("run_dir", None, "Folder of the run, to make or resume.")
flags.DEFINE_enum("model", "resnet_small", choices.MODELS, "Network.")
flags.DEFINE_enum(
    "head",
    "label",
    choices.HEADS,
    "fraction: learns the share of the centre that is tumor beside the label,"
    " where records have it; noisy_or: estimates it without.",
)
flags.DEFINE_integer(
    "image_size",
    96,
    "Pixels of a side that efficientnet_lite and the networks of Keras enlarge"
    " patches to: at 128 they learn in fewer steps, of 1.7 times the time.",
    lower_bound=96,
    upper_bound=512,
)
flags.DEFINE_string(
    "weights",
    "none",
    "What all layers but the head start with: none; imagenet; or a file, as"
    " best.keras of another run of the network, or weights of Keras.",
)
flags.DEFINE_integer(
    "freeze_epochs",
    0,
    "First epochs, in which only the head trains.",
    lower_bound=0,
)
flags.DEFINE_float(
    "backbone_learning_rate_factor",
    1.0,
    "Of the learning rate of all layers but the last.",
    lower_bound=0,
)
flag_groups.define_devices(
    choices.TRAIN_STRATEGIES,
    "One device; a replica on each GPU; or on each GPU of several workers, which"
    " the environment's TF_CONFIG names.",
)
flags.DEFINE_float(
    "worker_wait_seconds",
    600.0,
    "How long multi_worker waits for all workers to come up.",
    lower_bound=1,
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
flags.DEFINE_enum(
    "schedule",
    "constant",
    choices.SCHEDULES,
    "Of the learning rate; cosine falls to 0 at the last step.",
)
flags.DEFINE_integer(
    "warmup_steps",
    0,
    "First steps, in which the learning rate rises from 0.",
    lower_bound=0,
)
flags.DEFINE_float(
    "weight_decay",
    None,
    "Decoupled, of weights that are no biases. Default: the optimizer's.",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_float(
    "ema_decay",
    0.0,
    "Of a moving average of the weights, which is then what is validated and"
    " kept, as 0.999; the start of training counts for no more than its share. 0:"
    " none.",
    lower_bound=0,
    upper_bound=1 - 1e-9,
)
flags.DEFINE_float(
    "label_smoothing",
    0.0,
    "Labels 0 and 1 count as half of this and 1 less half of this in the loss.",
    lower_bound=0,
    upper_bound=0.5,
)
flags.DEFINE_float(
    "clip_norm",
    0.0,
    "Largest norm of the gradient over all weights. 0: any.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "gradient_accumulation_steps",
    1,
    "Parts in which each replica works off its share of a batch, to save"
    " memory.",
    lower_bound=1,
)
flags.DEFINE_enum(
    "augment",
    "none",
    choices.AUGMENTATIONS,
    "d4: each patch turned and flipped in one of 8 ways; stain: also its stains,"
    " contrast and brightness changed; strong: more of that, blurred, shifted by"
    " up to 2 pixels, and a square cut out beside the centre.",
)
flags.DEFINE_list(
    "class_weights", [], "Of the loss of labels 0 and 1, as 1,1.5; or balanced."
)
flags.DEFINE_bool(
    "sync_batch_norm",
    True,
    "Batch normalization takes its statistics over all replicas.",
)
flags.DEFINE_enum(
    "xla", "auto", choices.XLA, "Compile with XLA; auto: where there are GPUs."
)
flags.DEFINE_integer(
    "steps_per_loop",
    0,
    "Steps of a call of TensorFlow. 0: as many as fit in a second.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "on_nan",
    "stop",
    choices.ON_NAN,
    "Where loss or gradient are not finite: stop, or skip the step, 20"
    " times at most.",
)
flags.DEFINE_integer(
    "early_stopping_patience",
    0,
    "Epochs without a better validation AUC that end the run. 0: none do.",
    lower_bound=0,
)
flags.DEFINE_float(
    "checkpoint_every_seconds",
    300.0,
    "Between checkpoints within an epoch; its end has one anyway.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "keep_checkpoints", 3, "How many of the last ones.", lower_bound=1
)
flags.DEFINE_bool("tensorboard", False, "Write the scores for TensorBoard too.")
flags.DEFINE_list(
    "train_splits", [], "Default: all labelled ones not validated on."
)
flags.DEFINE_list("validation_splits", ["fold0"], "Splits to score.")
flags.DEFINE_integer(
    "seed",
    0,
    "Of weights, order, augmentation and dropout.",
    lower_bound=0,
    upper_bound=(1 << 32) - 1,
)
flag_groups.define_input()
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
flags.DEFINE_string(
    "data_service",
    None,
    "A tf.data service that reads training batches for stream, as"
    " grpc://HOST:PORT of its dispatcher (pcam data_service).",
)
flags.DEFINE_float(
    "data_service_timeout_seconds",
    300.0,
    "How long the service may be silent before the run ends.",
    lower_bound=0.1,
)
flags.DEFINE_bool("restart", False, "Begin anew, dropping the run there.")


def run() -> None:
    """Trains as the flags say."""
    with quiet.imports():
        import pandas

        from pcam_tfdata.evaluation import dead_network, plots
        from pcam_tfdata.runs import run_folder
        from pcam_tfdata.system import pictures
        from pcam_tfdata.training import configuration, train
    trained = flag_groups.from_flags(configuration.TrainOptions)
    state = train.train(trained)
    run_dir = trained.run_dir
    is_chief = tf_config.find_job(trained.devices.strategy).is_chief
    if is_chief:
        history = pandas.read_csv(os.path.join(run_dir, run_folder.HISTORY))
        path = os.path.join(run_dir, run_folder.HISTORY_PLOT)
        pictures.save(plots.draw_history(history), path)
    print(
        f"{run_dir}: {state.epoch} epochs; best validation AUC"
        f" {state.best_auc:.4f} after epoch {state.best_epoch}."
    )
    is_dead = dead_network.summarize(state.history, state.best_epoch)
    if is_chief and not is_dead:
        records = f"--records_dir={trained.records_dir}"
        next_step.tell("evaluate", records, f"--run_dir={run_dir}")
