"""How fast a network trains and predicts, beside the same on one batch."""

import functools
import time
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from pcam_tfdata.benchmark import (
    configuration,
    contender,
    feeds,
    machine,
    measure,
    results,
)
from pcam_tfdata.distribution import strategy
from pcam_tfdata.models import inference, networks
from pcam_tfdata.training import optimizers, replica_step

_TRAIN_LIMIT = "limit: training, one constant batch"
_PREDICT_LIMIT = "limit: prediction, one constant batch"
_TRAIN_PLAN = contender.Plan(warm_up=1, min_patches=0, min_seconds=5)
_PREDICT_PLAN = contender.Plan(warm_up=1, min_patches=0, min_seconds=2)
# Steps in a call of TensorFlow: as many as fit. `train` takes a second.
_CALL_SECONDS = 0.5
_PASS_BATCHES = 20  # A piece is a pass over no more: large data take long.
_EXPECTED_SHARE = 0.05


def run_training(
    options: configuration.BenchmarkOptions,
) -> results.Report:
    """Times training steps on the records and on one constant batch."""
    report, ratio = _run(
        options,
        _TRAIN_PLAN,
        contender.Contender(_TRAIN_LIMIT, train_on_one_batch),
        contender.Contender("training, mmap", train_on_records),
        contender.Contender("Keras fit, one constant batch", fit_on_one_batch),
    )
    if ratio is None:
        return report
    # Time is patches by rate: (real - constant) / real = 1 - ratio of rates.
    return results.add_note(
        report,
        f"input-bound share: {1 - ratio:.1%} (expected: at most"
        f" {_EXPECTED_SHARE:.0%})",
    )


def run_prediction(
    options: configuration.BenchmarkOptions,
) -> results.Report:
    """Times prediction of the records and of one constant batch."""
    report, _ = _run(
        options,
        _PREDICT_PLAN,
        contender.Contender(_PREDICT_LIMIT, predict_one_batch),
        contender.Contender("prediction, mmap", predict_records),
    )
    return report


def train_on_records(data: configuration.Data, model: str) -> Iterator[int]:
    """Trains on shuffled batches of the records."""
    distribution = strategy.make_strategy()
    ds = feeds.train_batches(data, feeds.open_patches(data))
    return _train(ds, data, model, distribution)


def train_on_one_batch(data: configuration.Data, model: str) -> Iterator[int]:
    """Trains on one batch of the records, over and over."""
    distribution = strategy.make_strategy()
    batch = next(iter(feeds.train_batches(data, feeds.open_patches(data))))
    ds = feeds.repeat(batch)
    return _train(ds, data, model, distribution)


def fit_on_one_batch(data: configuration.Data, model: str) -> Iterator[int]:
    """Trains on one batch with Keras' `fit`, at its best.

    Without XLA, which `fit` chooses by itself and which is slower on a CPU.
    """
    batch = next(iter(feeds.train_batches(data, feeds.open_patches(data))))
    ds = feeds.repeat((batch["image"], batch["label"]))
    with strategy.keras_settings(strategy.resolve_precision("auto"), 0):
        network = networks.build(model)
    network.compile(
        "adam",
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
        jit_compile=strategy.resolve_xla("auto"),
    )
    return _call_over_and_over(
        lambda num_steps: network.fit(ds, steps_per_epoch=num_steps, verbose=0),
        data.batch_size,
    )


def predict_records(data: configuration.Data, model: str) -> Iterator[int]:
    """Predicts the records, opened anew and from the first patch each piece."""
    predictor = _make_predictor(model)
    return _predict(predictor, lambda: feeds.eval_batches(data), data)


def predict_one_batch(data: configuration.Data, model: str) -> Iterator[int]:
    """Predicts one batch of the records, as often as there are batches."""
    predictor = _make_predictor(model)
    batch = next(iter(feeds.eval_batches(data)))
    ds = feeds.repeat(batch)
    return _predict(predictor, lambda: ds, data)


def _run(
    options: configuration.BenchmarkOptions,
    default_plan: contender.Plan,
    *runs: contender.Contender,
) -> tuple[results.Report, float | None]:
    """Returns the report, and the ratio of the second to the first, the limit."""
    data = configuration.find_data(options)
    plan = options.plan(default_plan)
    contenders = [
        contender.Contender(
            each.name, each.factory, {"data": data, "model": options.model}
        )
        for each in runs
    ]
    outcomes = measure.measure(contenders, plan)
    limit, real, *_ = outcomes
    report = results.build(
        machine.describe() | {"gpus": machine.list_gpus()},
        {"what": options.what, "model": options.model} | data.parameters(),
        plan,
        results.summarize(outcomes, limit.name),
    )
    return report, results.median_ratio(real, limit)


def _train(
    batches: tf.data.Dataset,
    data: configuration.Data,
    model: str,
    distribution: tf.distribute.Strategy,
) -> Iterator[int]:
    training = replica_step.Trainer(
        distribution,
        functools.partial(networks.build, model),
        functools.partial(
            optimizers.make_optimizer, optimizers.OptimizerOptions()
        ),
        replica_step.Recipe(data.batch_size),
    )
    iterator = iter(strategy.distribute(batches, distribution))

    def call(num_steps: int) -> None:
        sums = tf.zeros([3], tf.float64)
        training.run_steps(iterator, 0, num_steps, sums)

    return _call_over_and_over(call, data.batch_size)


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


def _make_predictor(model: str) -> inference.Predictor:
    distribution = strategy.make_strategy()
    settings = strategy.keras_settings(strategy.resolve_precision("auto"), 0)
    with settings, distribution.scope():
        network = networks.build(model)
    return inference.Predictor(network, distribution)


def _predict(
    predictor: inference.Predictor,
    open_batches: Callable[[], tf.data.Dataset],
    data: configuration.Data,
) -> Iterator[int]:
    # Whole batches only: the last one is padded.
    num_batches = min(_PASS_BATCHES, data.num_patches // data.batch_size)
    num_patches = num_batches * data.batch_size
    while True:
        batches = open_batches().take(num_batches)
        logits = predictor.stream(batches, num_patches, "predict")
        yield len(inference.join(logits)["row"])
