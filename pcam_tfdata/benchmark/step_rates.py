"""How fast a network trains and predicts, beside the same on one batch."""

import functools
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from pcam_tfdata.benchmark import configuration, harness, input_modes
from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import inference, networks
from pcam_tfdata.pipeline import batch_format
from pcam_tfdata.training import optimizers, steps

# Steps in a call of TensorFlow: as many as fit. `train` takes a second.
_CALL_SECONDS = 0.5
_PASS_BATCHES = 20  # A piece is a pass over no more: large data take long.
_EXPECTED_SHARE = 0.05


def train_on_records(options: configuration.Options) -> Iterator[int]:
    """Trains on shuffled batches of the records."""
    strategy = replicas.make_strategy()
    ds = input_modes.train_batches(options)
    return _train(ds, options, strategy)


def train_on_one_batch(options: configuration.Options) -> Iterator[int]:
    """Trains on one batch of the records, over and over."""
    strategy = replicas.make_strategy()
    batch = next(iter(input_modes.train_batches(options)))
    return _train(_repeat(batch), options, strategy)


def fit_on_one_batch(options: configuration.Options) -> Iterator[int]:
    """Trains on one batch with Keras' `fit`, at its best.

    Without XLA, which `fit` chooses by itself and which is slower on a CPU.
    """
    batch = next(iter(input_modes.train_batches(options)))
    ds = _repeat((batch["image"], batch["label"]))
    with replicas.keras_settings(replicas.resolve_precision("auto"), 0):
        network = networks.build(options.model)
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


def predict_records(options: configuration.Options) -> Iterator[int]:
    """Predicts the records, opened anew and from the first patch each piece."""
    return _predict(lambda: _eval_batches(options), options)


def predict_one_batch(options: configuration.Options) -> Iterator[int]:
    """Predicts one batch of the records, as often as there are batches."""
    ds = _repeat(next(iter(_eval_batches(options))))
    return _predict(lambda: ds, options)


def note_input_share(
    _: object, outcomes: Sequence[harness.Outcome]
) -> list[str]:
    """Returns a line with the share of time that training waits for input."""
    limit, real, *_ = outcomes
    ratio = real.ratio_to(limit)
    if ratio is None:
        return []
    # Time is patches by rate: (real - constant) / real = 1 - ratio of rates.
    return [
        f"input-bound share: {1 - ratio:.1%} (expected: at most"
        f" {_EXPECTED_SHARE:.0%})"
    ]


def _eval_batches(options: configuration.Options) -> tf.data.Dataset:
    """Returns every patch once, in order; each CRC is looked at.

    A prediction reads its patches once, so it pays for every one.
    """
    patches = input_modes.open_patches(
        options, input="mmap", check_crc="first_epoch"
    )
    return patches.eval_batches(batch_size=options.batch_size)


def _repeat(batch: object) -> tf.data.Dataset:
    """Returns one batch over and over, as cheaply as TensorFlow can."""
    ds = tf.data.Dataset.from_tensors(batch).repeat()
    return batch_format.limit_threads(ds, 0)


def _train(
    ds: tf.data.Dataset,
    options: configuration.Options,
    strategy: tf.distribute.Strategy,
) -> Iterator[int]:
    training = steps.Trainer(
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
        training.run_steps(iterator, 0, num_steps, sums)

    return _call_over_and_over(call, options.batch_size)


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


def _predict(
    open_batches: Callable[[], tf.data.Dataset], options: configuration.Options
) -> Iterator[int]:
    strategy = replicas.make_strategy()
    settings = replicas.keras_settings(replicas.resolve_precision("auto"), 0)
    with settings, strategy.scope():
        network = networks.build(options.model)
    predictor = inference.Predictor(network, strategy)
    # Whole batches only: the last one is padded.
    num_batches = options.select_patches().num_patches // options.batch_size
    num_batches = min(_PASS_BATCHES, num_batches)
    num_patches = num_batches * options.batch_size
    while True:
        ds = open_batches().take(num_batches)
        logits = predictor.stream(ds, num_patches, "predict")
        yield len(inference.join(logits)["row"])
