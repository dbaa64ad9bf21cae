"""`pcam` with a tiny network, which notes what its steps see and lose.

It computes in float64, so that one way to compute is told from another.
NOTES.log gets what it prints; NOTES.images the SHA-1 of every patch that a step
gets, 20 bytes each, after augmentation; NOTES.losses a line with the loss of every
step. Before the step of TINY_PAUSE in the environment it makes NOTES.paused and
waits for NOTES.go. TINY_CLOCK makes the time of the loop run so many times as fast;
TINY_STOP ends training after that epoch, by a callback.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import sys
import time
import types
from collections.abc import Mapping, Sequence

from pcam_tfdata.cli import main


def run(
    notes: str, environment: Mapping[str, str], arguments: Sequence[str]
) -> None:
    """Runs a command in a process that is its own."""
    os.environ.update(environment)
    log = os.open(f"{notes}.log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    prepare(notes)
    main.run(arguments)


def prepare(notes: str) -> None:
    """Puts the tiny network in place of all others, and listens to steps."""
    import keras
    import tensorflow as tf

    from pcam_tfdata.models import networks
    from pcam_tfdata.training import steps

    images = open(f"{notes}.images", "wb", buffering=0)
    losses = open(f"{notes}.losses", "w", buffering=1)

    def note(image) -> None:
        hashes = [hashlib.sha1(patch.tobytes()).digest() for patch in image]
        images.write(b"".join(hashes))

    class Listening(steps.Trainer):
        def __init__(self, distribution, network, optimizer, recipe, *given):
            recipe = dataclasses.replace(recipe, precision="float64")
            super().__init__(distribution, network, optimizer, recipe, *given)

        def _differentiate(self, image, *targets):
            with tf.control_dependencies(
                [tf.numpy_function(note, [image], [])]
            ):
                return super()._differentiate(tf.identity(image), *targets)

        def run_steps(self, batches, step, num_steps, sums):
            if str(step) == os.environ.get("TINY_PAUSE"):
                pause(notes)
            found = super().run_steps(batches, step, num_steps, sums)
            losses.write(f"{float(found[0][0] - sums[0])!r}\n")
            return found

    def build(*_: object) -> keras.Model:
        image = keras.Input((96, 96, 3), dtype="uint8")
        x = keras.layers.Rescaling(1 / 255)(image)
        x = keras.layers.Conv2D(4, 8, strides=8, activation="relu")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Flatten()(x)
        return keras.Model(image, keras.layers.Dense(1)(x))

    networks.build = build
    steps.Trainer = Listening
    change_clock(float(os.environ.get("TINY_CLOCK", 1)))
    if "TINY_STOP" in os.environ:
        stop_after(int(os.environ["TINY_STOP"]))


def change_clock(factor: float) -> None:
    """Has the loop measure other times than those that pass."""
    from pcam_tfdata.training import loop

    loop.time = types.SimpleNamespace(
        monotonic=lambda: factor * time.monotonic()
    )


def stop_after(last_epoch: int) -> None:
    """Adds a callback that ends training."""
    import keras

    from pcam_tfdata.training import train

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch + 1 == last_epoch

    train.train = functools.partial(train.train, callbacks=[Stop()])


def pause(notes: str) -> None:
    """Waits until somebody lets it go on."""
    pathlib.Path(f"{notes}.paused").touch()
    while not os.path.exists(f"{notes}.go"):
        time.sleep(0.01)
