"""The training loop: one for a single device and for mirrored replicas.

Keras' `fit` fails under MirroredStrategy in several ways (BUILD_NOTES.md), so
the loop is our own; networks, optimizers and callbacks are Keras'.
"""

import dataclasses
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata import (
    checkpoints,
    inference,
    manifest,
    metrics,
    models,
    pipeline,
    progress,
    run_files,
    strategy,
)

OPTIMIZERS = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}
# A call into TensorFlow runs as many steps as fit in this time.
_CALL_SECONDS = 1.0

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """A training run.

    Attributes:
        records_dir: Records folder.
        run_dir: Folder of the run; an unfinished run there is resumed.
        model: Network, one of `models.NAMES`.
        strategy: `one_device` or `mirrored`.
        precision: `auto`, `float32`, `mixed_float16` or `mixed_bfloat16`.
        batch_size: Patches of a step, over all replicas.
        epochs: Times that each patch is seen.
        optimizer: One of `OPTIMIZERS`.
        learning_rate: For the mean of the loss over the whole batch.
        train_splits: Names; none for all labelled splits not validated on.
        validation_splits: Names.
        seed: Of weights, order and dropout.
        input: Way in, one of `pipeline.INPUTS`.
        num_virtual_devices: See `strategy.make_strategy`.
        allow_cpu: Likewise.
        restart: Begins anew in a folder where there is a run.
    """

    records_dir: str
    run_dir: str
    model: str = "seed_cnn"
    strategy: str = "one_device"
    precision: str = "auto"
    batch_size: int = 1024
    epochs: int = 20
    optimizer: str = "adam"
    learning_rate: float = 0.001
    train_splits: Sequence[str] = ()
    validation_splits: Sequence[str] = ("fold0",)
    seed: int = 0
    input: str = "mmap"
    num_virtual_devices: int = 0
    allow_cpu: bool = False
    restart: bool = False


@dataclasses.dataclass
class _Progress:
    """How far a run has come: what a checkpoint holds beside variables."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_auc: float = -1.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


class Trainer:
    """A network and its optimizer, stepped on the replicas of a strategy.

    Attributes:
        model: The network.
        optimizer: Of Keras; under mixed_float16 with a dynamic loss scale.
    """

    def __init__(
        self, options: TrainOptions, distribution: tf.distribute.Strategy
    ) -> None:
        self._distribution = distribution
        self._batch_size = options.batch_size
        precision = strategy.resolve_precision(options.precision)
        strategy.reset_keras(precision, options.seed)
        with distribution.scope():
            self.model = models.build(options.model)
            optimizer = OPTIMIZERS[options.optimizer](options.learning_rate)
            if strategy.scales_loss(precision):
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            optimizer.build(self.model.trainable_variables)
        self.optimizer = self.model.optimizer = optimizer
        self.variables = checkpoints.variables_of(self.model, optimizer)
        self._run_steps = tf.function(self._loop, reduce_retracing=True)

    def run_steps(
        self, batches: Iterator, num_steps: int, sums: tf.Tensor
    ) -> tf.Tensor:
        """Runs steps in one call of TensorFlow.

        Args:
            batches: Of a distributed dataset.
            num_steps: How many.
            sums: float64 [3], of loss, right answers and patches so far.

        Returns:
            The sums with these steps added, one after the other, so that they
            do not depend on how steps are parted into calls.
        """
        return self._run_steps(batches, tf.constant(num_steps), sums)

    def save_model(self, path: str) -> None:
        """Writes the network as a `.keras` file, without its optimizer."""
        self.model.optimizer = None
        self.model.save(path)
        self.model.optimizer = self.optimizer

    def _loop(
        self, batches: Iterator, num_steps: tf.Tensor, sums: tf.Tensor
    ) -> tf.Tensor:
        for _ in tf.range(num_steps):
            part = self._distribution.run(self._step, args=(next(batches),))
            sums += self._distribution.reduce(
                tf.distribute.ReduceOp.SUM, part, axis=None
            )
        return sums

    def _step(self, batch: pipeline.Batch) -> tf.Tensor:
        """Trains on the part of a batch that is this replica's."""
        label = tf.cast(batch["label"], tf.float32)
        with tf.GradientTape() as tape:
            logit = self.model(batch["image"], training=True)[:, 0]
            losses = tf.nn.sigmoid_cross_entropy_with_logits(label, logit)
            loss_sum = tf.reduce_sum(losses)
            scaled = self.optimizer.scale_loss(loss_sum / self._batch_size)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        apply_gradients(self.optimizer, gradients)
        right = tf.math.count_nonzero((logit > 0) == (label > 0.5))
        values = (loss_sum, right, tf.size(logit))
        return tf.stack([tf.cast(value, tf.float64) for value in values])


def apply_gradients(
    optimizer: keras.Optimizer, gradients: Sequence[tf.Tensor]
) -> None:
    """Applies the sum of all replicas' gradients; called in a replica.

    Summed here, so that each replica holds the sum when LossScaleOptimizer looks
    for Inf: it looks at the first replica alone. Keras then sums once more,
    hence the division.
    """
    context = tf.distribute.get_replica_context()
    sums = context.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
    num_replicas = context.num_replicas_in_sync
    optimizer.apply([total / num_replicas for total in sums])


def train(
    options: TrainOptions, callbacks: Sequence[keras.callbacks.Callback] = ()
) -> dict[str, float]:
    """Trains a network, or goes on with an unfinished run.

    Validates every epoch, keeps the model of best validation AUC, and writes a
    checkpoint. The order of the patches follows from `seed`.

    Args:
        options: The run.
        callbacks: Of Keras; they receive batch and epoch events as from `fit`.

    Returns:
        `epoch`, `step`, `best_epoch` and `best_val_auc`.

    Raises:
        FileNotFoundError, ValueError: records, splits or options do not fit.
        FileExistsError: the run folder holds something else.
    """
    options = _complete(options)
    distribution = strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )
    _check_batch_size(options, distribution.num_replicas_in_sync)
    flags = dataclasses.asdict(options)
    del flags["restart"]
    run_files.open_run(options.run_dir, flags, restart=options.restart)
    trainer = Trainer(options, distribution)
    state = checkpoints.restore_latest(
        os.path.join(options.run_dir, run_files.CHECKPOINTS), trainer.variables
    )
    done = _Progress(**state) if state else _Progress()
    run_files.write_history(options.run_dir, done.history)
    if done.epoch < options.epochs:
        _announce(options, trainer, distribution, done)
        _run_epochs(options, trainer, distribution, done, callbacks)
    else:
        _logger.info("%s: finished before, nothing to do.", options.run_dir)
    return {
        "epoch": done.epoch,
        "step": done.step,
        "best_epoch": done.best_epoch,
        "best_val_auc": done.best_auc,
    }


def _complete(options: TrainOptions) -> TrainOptions:
    """Returns the options with `train_splits` filled in, after checking them."""
    content = manifest.read(options.records_dir)
    validation = content.select(options.validation_splits)
    names = options.train_splits or [
        split.name
        for split in content.splits
        if split.labeled and split not in validation
    ]
    training = content.select(names)
    shared = set(names) & set(options.validation_splits)
    if shared:
        raise ValueError(
            f"--validation_splits: found {', '.join(sorted(shared))} among"
            " --train_splits too, expected none: a score on training data says"
            " nothing."
        )
    unlabeled = [s.name for s in training + validation if not s.labeled]
    if unlabeled:
        raise ValueError(
            f"found splits without labels, {', '.join(unlabeled)}, expected"
            " labelled ones in --train_splits and --validation_splits."
        )
    for label in ("0", "1"):
        if not sum(split.class_counts[label] for split in validation):
            raise ValueError(
                f"--validation_splits: found no patch of label {label},"
                " expected both labels: the AUC needs them."
            )
    return dataclasses.replace(
        options,
        train_splits=tuple(names),
        validation_splits=tuple(options.validation_splits),
    )


def _check_batch_size(options: TrainOptions, num_replicas: int) -> None:
    size = options.batch_size
    if size % num_replicas:
        below = size - size % num_replicas
        nearest = [n for n in (below, below + num_replicas) if n]
        raise ValueError(
            f"--batch_size: found {size}, which {num_replicas} replicas cannot"
            f" share evenly. Take {' or '.join(map(str, nearest))}."
        )
    num_patches = _source(options, options.train_splits).count_patches()
    if size > num_patches:
        raise ValueError(
            f"--batch_size: found {size}, expected at most the number of"
            f" training patches, {num_patches:,}."
        )


def _source(options: TrainOptions, splits: Sequence[str]) -> pipeline.Source:
    return pipeline.Source(options.records_dir, splits, options.input)


def _announce(
    options: TrainOptions,
    trainer: Trainer,
    distribution: tf.distribute.Strategy,
    done: _Progress,
) -> None:
    devices = strategy.describe_devices(distribution)
    precision = trainer.model.dtype_policy.name
    run_files.write_environment(
        options.run_dir,
        {
            "first_epoch": done.epoch + 1,
            "devices": devices,
            "precision": precision,
            "manifest_sha256": manifest.hash_manifest(options.records_dir),
        },
    )
    _logger.info(
        "%s: %s parameters, %s, on %s.", options.model,
        f"{trainer.model.count_params():,}", precision, ", ".join(devices),
    )  # fmt: skip
    if done.epoch:
        _logger.info("Resuming after epoch %d.", done.epoch)


def _run_epochs(
    options: TrainOptions,
    trainer: Trainer,
    distribution: tf.distribute.Strategy,
    done: _Progress,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    train_source = _source(options, options.train_splits)
    num_patches = train_source.count_patches()
    # Batches straddle epochs: an epoch ends with the step that completes it.
    last_steps = [
        math.ceil(epoch * num_patches / options.batch_size)
        for epoch in range(options.epochs + 1)
    ]
    batches = iter(
        distribution.experimental_distribute_dataset(
            pipeline.train_batches(
                train_source,
                batch_size=options.batch_size,
                seed=options.seed,
                first_step=done.step,
                num_steps=last_steps[-1],
            )
        )
    )
    predictor = inference.Predictor(trainer.model, distribution)
    events = keras.callbacks.CallbackList(
        list(callbacks), model=trainer.model, epochs=options.epochs
    )
    trainer.model.stop_training = False
    events.on_train_begin()
    while done.epoch < options.epochs and not trainer.model.stop_training:
        events.on_epoch_begin(done.epoch)
        start = time.monotonic()
        scores = _run_epoch(
            options, trainer, batches, last_steps[done.epoch + 1], done, events
        )
        trained = time.monotonic()
        scores |= _validate(options, predictor)
        validated = time.monotonic()
        _finish_epoch(options, trainer, done, scores)
        events.on_epoch_end(done.epoch - 1, scores)
        _save(options, trainer, done)
        num_trained = done.step - last_steps[done.epoch - 1]
        run_files.append_timing(
            options.run_dir,
            {
                "epoch": done.epoch,
                "train_seconds": round(trained - start, 3),
                "validation_seconds": round(validated - trained, 3),
                "train_patches_per_second": round(
                    num_trained * options.batch_size / (trained - start), 1
                ),
            },
        )
    events.on_train_end()


def _run_epoch(
    options: TrainOptions,
    trainer: Trainer,
    batches: Iterator,
    last_step: int,
    done: _Progress,
    events: keras.callbacks.CallbackList,
) -> dict[str, float]:
    """Trains up to `last_step`; returns the mean loss and accuracy."""
    sums = tf.zeros([3], tf.float64)
    num_steps = last_step - done.step
    steps_per_call = 1
    first_step = done.step
    description = f"epoch {done.epoch + 1}/{options.epochs}"
    total = num_steps * options.batch_size
    with progress.Progress(total, description) as bar:
        while done.step < last_step:
            start = time.monotonic()
            count = min(steps_per_call, last_step - done.step)
            events.on_train_batch_begin(done.step - first_step)
            sums = trainer.run_steps(batches, count, sums)
            done.step += count
            loss, right, seen = sums.numpy()
            logs = {"loss": loss / seen, "accuracy": right / seen}
            events.on_train_batch_end(done.step - first_step - 1, logs)
            bar.advance_to(int(seen), **logs)
            seconds_per_step = (time.monotonic() - start) / count
            steps_per_call = max(1, int(_CALL_SECONDS / seconds_per_step))
    return {name: float(value) for name, value in logs.items()}


def _validate(
    options: TrainOptions, predictor: inference.Predictor
) -> dict[str, float]:
    source = _source(options, options.validation_splits)
    found = predictor.predict(
        pipeline.eval_batches(source, batch_size=options.batch_size),
        source.count_patches(),
        "validation",
    )
    label, logit = found["label"], found["logit"]
    return {
        "val_loss": metrics.nll(label, logit),
        "val_accuracy": float(np.mean((logit > 0) == (label > 0))),
        "val_auc": metrics.auc(label, logit),
    }


def _finish_epoch(
    options: TrainOptions,
    trainer: Trainer,
    done: _Progress,
    scores: dict[str, float],
) -> None:
    """Notes the scores of an epoch, and keeps the model if it is the best."""
    done.epoch += 1
    learning_rate = float(np.asarray(trainer.optimizer.learning_rate))
    done.history.append(
        {"epoch": done.epoch, "step": done.step}
        | {"learning_rate": learning_rate}
        | scores
    )
    _logger.info(
        "epoch %d/%d: %s", done.epoch, options.epochs,
        ", ".join(f"{name} {value:.4f}" for name, value in scores.items()),
    )  # fmt: skip
    if scores["val_auc"] > done.best_auc:
        done.best_auc, done.best_epoch = scores["val_auc"], done.epoch
        path = os.path.join(options.run_dir, run_files.BEST_MODEL)
        temporary = os.path.join(options.run_dir, "incomplete.keras")
        trainer.save_model(temporary)
        os.replace(temporary, path)


def _save(options: TrainOptions, trainer: Trainer, done: _Progress) -> None:
    checkpoints.write(
        os.path.join(options.run_dir, run_files.CHECKPOINTS),
        done.step,
        trainer.variables,
        dataclasses.asdict(done),
    )
    run_files.write_history(options.run_dir, done.history)
