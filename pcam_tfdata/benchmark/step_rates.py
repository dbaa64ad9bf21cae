"""How fast a network trains and predicts, and a training run takes its steps.

Limits are the same on one batch, and the same steps in few calls. What a run adds
to a step (calls, callbacks, progress, checks) shows with a network so small that a
step of a small batch takes about a millisecond.
"""

import dataclasses
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration, input_rates
from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import inference, networks
from pcam_tfdata.pipeline import batch_format, input_choice
from pcam_tfdata.records import records_folder
from pcam_tfdata.training import configuration as training_configuration
from pcam_tfdata.training import optimizers, steps
from pcam_tfdata.training import train as training_run

# Steps in a call of TensorFlow: as many as fit. `train` takes a second.
_CALL_SECONDS = 0.5
_PASS_BATCHES = 20  # A piece is a pass over no more: large data take long.
_EPOCHS = 1 << 20  # More than anybody waits for.


def train(
    options: configuration.Options, *, on_one_batch: bool = False
) -> Iterator[int]:
    """Trains on shuffled batches of the records, or on one of them for ever."""
    strategy = replicas.make_strategy()
    ds = input_rates.train_batches(options)
    if on_one_batch:
        ds = _repeat(next(iter(ds)))
    trainer = steps.Trainer(
        strategy,
        functools.partial(networks.build, options.model),
        functools.partial(
            optimizers.make_optimizer, optimizers.OptimizerOptions()
        ),
        steps.Recipe(options.batch_size),
    )
    iterator = iter(replicas.distribute(ds, strategy))

    def call(num_steps: int) -> None:
        sums = tf.zeros([3], tf.float64)
        trainer.run_steps(iterator, 0, num_steps, sums)

    return _call_over_and_over(call, options.batch_size)


def fit_on_one_batch(options: configuration.Options) -> Iterator[int]:
    """Trains on one batch with Keras' `fit`, at its best.

    Without XLA, which `fit` chooses by itself and which is slower on a CPU.
    """
    batch = next(iter(input_rates.train_batches(options)))
    ds = _repeat((batch["image"], batch["label"]))
    network = _build(options)
    network.compile(
        "adam",
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
        jit_compile=replicas.resolve_xla("auto"),
    )
    return _call_over_and_over(
        lambda num_steps: network.fit(ds, steps_per_epoch=num_steps, verbose=0),
        options.batch_size,
    )


def predict(
    options: configuration.Options, *, on_one_batch: bool = False
) -> Iterator[int]:
    """Predicts the records, opened anew and from the first patch each piece.

    Or one of their batches, as often as there are batches.
    """
    strategy = replicas.make_strategy()
    with strategy.scope():
        network = _build(options)
    predictor = inference.Predictor(network, strategy)
    # Whole batches only: the last one is padded.
    num_batches = options.select_patches().num_patches // options.batch_size
    num_batches = min(_PASS_BATCHES, num_batches)
    num_patches = num_batches * options.batch_size
    ds = _repeat(next(iter(_eval_batches(options))))
    while True:
        if not on_one_batch:
            ds = _eval_batches(options)
        stream = predictor.stream(ds.take(num_batches), num_patches, "predict")
        yield len(inference.join(stream)["row"])


def call_steps(options: configuration.Options) -> Iterator[int]:
    """Trains the tiny network in as few calls of TensorFlow as fit."""
    splits = _make_tiny_run(options).train_splits
    return train(dataclasses.replace(options, splits=splits))


def run_epochs(options: configuration.Options) -> Iterator[int]:
    """Trains the tiny network as a run.

    At each `next` the steps of an epoch, without its validation.
    """
    run = _make_tiny_run(options)
    turn = threading.Barrier(2)  # Both wait where steps begin, and end.
    batches: list[int] = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: turn.wait(),
        on_train_batch_end=lambda batch, logs: batches.append(batch),
        on_test_begin=lambda *_: turn.wait(),
    )

    def train_on() -> None:
        try:
            training_run.train(run, [callback])
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=train_on, daemon=True).start()
    while True:
        turn.wait()
        turn.wait()
        yield (batches[-1] + 1) * options.batch_size


def _make_tiny_run(
    options: configuration.Options,
) -> training_configuration.TrainOptions:
    """Returns what to train: all labelled splits but that of the validation.

    From now on, each network that this process builds is the tiny one.
    """
    networks.build = _build_tiny
    run = training_configuration.TrainOptions(
        records_dir=options.records_dir,
        run_dir=os.path.join(options.scratch_dir, "run"),
        recipe=steps.Recipe(options.batch_size),
        epochs=_EPOCHS,
    )
    records = records_folder.open_folder(run.records_dir)
    return training_configuration.settle_splits(run, records)


def _build_tiny(
    name: str, head: str = "label", image_size: int = schema.PATCH_SIZE
) -> keras.Model:
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Flatten()(keras.layers.Conv2D(4, 8, strides=8)(x))
    return keras.Model(image, keras.layers.Dense(1)(x))


def _build(options: configuration.Options) -> keras.Model:
    with replicas.keras_settings(replicas.resolve_precision("auto"), 0):
        return networks.build(options.model)


def _eval_batches(options: configuration.Options) -> tf.data.Dataset:
    """Returns every patch once, in order; each CRC is looked at.

    A prediction reads its patches once, so it pays for every one.
    """
    source = input_rates.open_source(options, check_crc="first_epoch")
    patches = input_choice.open_patches(source)
    return patches.eval_batches(batch_size=options.batch_size)


def _repeat(batch: object) -> tf.data.Dataset:
    """Returns one batch over and over, as cheaply as TensorFlow can."""
    ds = tf.data.Dataset.from_tensors(batch).repeat()
    return batch_format.limit_threads(ds, 0)


def _call_over_and_over(
    call: Callable[[int], object], batch_size: int
) -> Iterator[int]:
    """Calls for as many steps at a time as fit; gives the patches of each."""
    call(1)  # Traces.
    start = time.perf_counter()
    call(1)
    step_seconds = time.perf_counter() - start
    num_steps = max(1, int(_CALL_SECONDS / step_seconds))
    while True:
        call(num_steps)
        yield num_steps * batch_size
