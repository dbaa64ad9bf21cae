"""Times the steps of a training run beside the same steps in one call.

What the loop adds to a step (calls, callbacks, progress, checks) shows with a
network so small that a step takes about a millisecond.
"""

import functools
import statistics
import tempfile
import time

import keras
import tensorflow as tf
from absl import app, flags

from pcam_tfdata import schema
from pcam_tfdata.distribution import strategy, worker_group
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import checkpoint_files, run_folder
from pcam_tfdata.system import csv_files
from pcam_tfdata.training import (
    configuration,
    loop,
    optimizers,
    prepared_run,
    replica_step,
)

_RECORDS_DIR = flags.DEFINE_string("records_dir", None, "Records folder.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Patches of a step.")
_EPOCHS = flags.DEFINE_integer("epochs", 8, "The first one is not counted.")


def main(_) -> None:
    """Prints the ratio of both."""
    flags.mark_flag_as_required("records_dir")
    with tempfile.TemporaryDirectory() as run_dir:
        options = configuration.settle_splits(
            configuration.TrainOptions(
                records_dir=_RECORDS_DIR.value,
                run_dir=run_dir,
                recipe=replica_step.Recipe(_BATCH_SIZE.value),
                epochs=_EPOCHS.value,
            ),
            records_folder.open_folder(_RECORDS_DIR.value),
        )
        one_call = OneCall(options)
        _train(options, one_call)
        rows = csv_files.read_csv(
            f"{run_dir}/{run_folder.TIMING}", ("train_seconds",)
        )
    steps = [float(seconds) for (seconds,) in rows]
    ratios = [
        step / single
        for step, single in zip(steps[1:], one_call.seconds[1:], strict=True)
    ]
    print(
        f"{one_call.num_steps} steps an epoch, milliseconds a step:"
        f" {_milliseconds(steps, one_call)} in the loop,"
        f" {_milliseconds(one_call.seconds, one_call)} in one call; ratio"
        f" {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        f" over {len(ratios)} epochs"
    )


class OneCall(keras.callbacks.Callback):
    """After each epoch, runs as many steps of another network in one call."""

    def __init__(self, options: configuration.TrainOptions) -> None:
        super().__init__()
        self.seconds: list[float] = []
        records = records_folder.open_folder(options.records_dir)
        training = patch_source.open_patches(options.training(records))
        self.num_steps = options.last_step(1, training.num_patches)
        self._machine, distribution = _make_trainer(options)
        ds = training.train_batches(
            batch_size=options.recipe.batch_size,
            seed=0,
            first_step=0,
            num_steps=(options.epochs + 1) * self.num_steps,
        )
        self._batches = iter(strategy.distribute(ds, distribution))
        self._sums = tf.zeros([3], tf.float64)

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Runs and times them."""
        start = time.monotonic()
        self._machine.run_steps(self._batches, 0, self.num_steps, self._sums)
        self.seconds.append(time.monotonic() - start)


def _train(options: configuration.TrainOptions, one_call: OneCall) -> None:
    machine, distribution = _make_trainer(options)
    records = records_folder.open_folder(options.records_dir)
    training = patch_source.open_patches(options.training(records))
    validation = patch_source.open_patches(options.validation(records))
    group = worker_group.WorkerGroup(distribution)
    run = prepared_run.PreparedRun(
        options,
        group,
        machine,
        training,
        validation,
        checkpoint_files.State(),
    )
    loop.train_epochs(run, [one_call])


def _make_trainer(
    options: configuration.TrainOptions,
) -> tuple[replica_step.Trainer, tf.distribute.Strategy]:
    distribution = strategy.make_strategy()
    trainer = replica_step.Trainer(
        distribution,
        _build,
        functools.partial(optimizers.make_optimizer, options.optimizer),
        options.recipe,
    )
    return trainer, distribution


def _build() -> keras.Model:
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 8, strides=8)(x))
    return keras.Model(image, keras.layers.Dense(1)(x))


def _milliseconds(seconds: list[float], one_call: OneCall) -> str:
    return f"{statistics.median(seconds[1:]) / one_call.num_steps * 1e3:.3f}"


if __name__ == "__main__":
    app.run(main)
