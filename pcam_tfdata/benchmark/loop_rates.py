"""How fast a training run takes its steps, beside the same in few calls.

What the loop adds to a step (calls, callbacks, progress, checks) shows with a
network so small that a step of a small batch takes about a millisecond.
"""

import dataclasses
import os
import sys
import threading
from collections.abc import Iterator

import keras

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration, step_rates
from pcam_tfdata.models import networks
from pcam_tfdata.records import records_folder
from pcam_tfdata.training import configuration as training_configuration
from pcam_tfdata.training import steps, train

_EPOCHS = 1 << 20  # More than anybody waits for.


def call_steps(options: configuration.Options) -> Iterator[int]:
    """Runs as many steps as fit in one call of TensorFlow."""
    networks.build = _build
    splits = _make_run(options).train_splits
    return step_rates.train_on_records(
        dataclasses.replace(options, splits=splits)
    )


def run_epochs(options: configuration.Options) -> Iterator[int]:
    """Trains; at each `next` the steps of an epoch, without its validation."""
    networks.build = _build
    gate = _Gate()
    run = _make_run(options)

    def train_on() -> None:
        try:
            train.train(run, [gate])
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=train_on, daemon=True).start()
    while True:
        yield gate.let_pass() * options.batch_size


def _make_run(
    options: configuration.Options,
) -> training_configuration.TrainOptions:
    """Returns what to train: all labelled splits but that of the validation."""
    run = training_configuration.TrainOptions(
        records_dir=options.records_dir,
        run_dir=os.path.join(options.scratch_dir or "", "run"),
        recipe=steps.Recipe(options.batch_size),
        epochs=_EPOCHS,
    )
    records = records_folder.open_folder(run.records_dir)
    return training_configuration.settle_splits(run, records)


class _Gate(keras.callbacks.Callback):
    """Holds each epoch until somebody waits for its steps."""

    def __init__(self) -> None:
        super().__init__()
        self._begin, self._end = threading.Semaphore(0), threading.Semaphore(0)
        self._num_steps = 0

    def let_pass(self) -> int:
        """Waits for the steps of an epoch; returns how many there were."""
        self._begin.release()
        self._end.acquire()
        return self._num_steps

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._begin.acquire()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self._num_steps = batch + 1

    def on_test_begin(self, logs: object = None) -> None:
        self._end.release()


def _build(name: str) -> keras.Model:
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 8, strides=8)(x))
    return keras.Model(image, keras.layers.Dense(1)(x))
