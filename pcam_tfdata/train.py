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
    pipeline,
    progress,
    run_files,
    strategy,
    train_options,
    trainer,
)

# A call into TensorFlow runs as many steps as fit in this time.
_CALL_SECONDS = 1.0

_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class _State:
    """How far a run has come: what a checkpoint holds beside variables."""

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_auc: float = -1.0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


def train(
    options: train_options.TrainOptions,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """Trains a network, or goes on with an unfinished run.

    Validates every epoch, keeps the model of best validation AUC, and writes a
    checkpoint. Which patches a step sees follows from the seed.

    Args:
        options: The run.
        callbacks: Of Keras; they receive batch and epoch events as from `fit`.

    Returns:
        `epoch`, `step`, `best_epoch` and `best_val_auc`.

    Raises:
        FileNotFoundError, ValueError: records, splits or options do not fit.
        FileExistsError: the run folder holds something else.
        FloatingPointError: the loss is no longer finite.
    """
    options = train_options.settle_splits(options)
    distribution = strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )
    train_options.check_batch_size(options, distribution.num_replicas_in_sync)
    run = _open_run(options, distribution)
    if run.is_finished():
        _logger.info("%s: finished before, nothing to do.", options.run_dir)
    else:
        run.announce()
        run_files.make_input_cache(options.run_dir)
        run.go_on(callbacks)
        run_files.remove_input_cache(options.run_dir)
    state = run.state
    return {
        "epoch": state.epoch,
        "step": state.step,
        "best_epoch": state.best_epoch,
        "best_val_auc": state.best_auc,
    }


def _open_run(
    options: train_options.TrainOptions, distribution: tf.distribute.Strategy
) -> "_Run":
    """Opens the records and then the run's folder.

    So damaged shards are refused before anything is made, or removed.
    """
    devices = strategy.list_devices(distribution)
    training = pipeline.open_patches(options.training(), devices)
    validation = pipeline.open_patches(options.validation(), devices)
    flags = dataclasses.asdict(options)
    del flags["restart"]
    run_files.open_run(options.run_dir, flags, restart=options.restart)
    return _Run(options, distribution, training, validation)


class _Run:
    """A run from its last checkpoint on."""

    def __init__(
        self,
        options: train_options.TrainOptions,
        distribution: tf.distribute.Strategy,
        training: pipeline.Patches,
        validation: pipeline.Patches,
    ) -> None:
        self._options = options
        self._distribution = distribution
        self._training = training
        self._validation = validation
        self._precision = strategy.resolve_precision(options.precision)
        self._trainer = trainer.Trainer(
            distribution,
            model=options.model,
            optimizer=options.optimizer,
            learning_rate=options.learning_rate,
            batch_size=options.batch_size,
            precision=self._precision,
            seed=options.seed,
            fill=training.fill,
        )
        self._predictor = inference.Predictor(
            self._trainer.model, distribution, validation.fill
        )
        self._validation_batches = validation.eval_batches(
            batch_size=options.batch_size
        )
        self._checkpoints = os.path.join(options.run_dir, run_files.CHECKPOINTS)
        found = checkpoints.restore_latest(
            self._checkpoints, self._trainer.variables
        )
        self.state = _State(**found) if found else _State()
        # A run killed between the two files has a history of the last epoch.
        run_files.write_history(options.run_dir, self.state.history)

    def is_finished(self) -> bool:
        return self.state.epoch >= self._options.epochs

    def announce(self) -> None:
        """Says, and notes in the run's folder, what computes where."""
        options = self._options
        devices = strategy.describe_devices(self._distribution)
        run_files.write_environment(
            options.run_dir,
            {
                "first_epoch": self.state.epoch + 1,
                "devices": devices,
                "precision": self._precision,
                "order": self._training.order,
                "manifest_sha256": manifest.hash_manifest(options.records_dir),
            },
        )
        _logger.info(
            "%s: %s parameters, %s, on %s; %s training and %s validation"
            " patches.",
            options.model,
            f"{self._trainer.model.count_params():,}",
            self._precision,
            ", ".join(devices),
            f"{self._training.num_patches:,}",
            f"{self._validation.num_patches:,}",
        )
        _logger.info("Input: %s.", self._training.plan)
        if self.state.epoch:
            _logger.info("Resuming after epoch %d.", self.state.epoch)

    def go_on(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Trains until all epochs are done, or a callback stops it."""
        options, model = self._options, self._trainer.model
        batches = iter(
            self._distribution.experimental_distribute_dataset(
                self._training.train_batches(
                    batch_size=options.batch_size,
                    seed=options.seed,
                    first_step=self.state.step,
                    num_steps=self._last_step(options.epochs),
                )
            )
        )
        events = keras.callbacks.CallbackList(
            list(callbacks), model=model, epochs=options.epochs
        )
        model.stop_training = False
        events.on_train_begin()
        with pipeline.damage_named(self._training, self._validation):
            while not self.is_finished() and not model.stop_training:
                self._run_epoch(batches, events)
        events.on_train_end()

    def _last_step(self, num_epochs: int) -> int:
        """Returns the step that completes an epoch: batches straddle epochs."""
        num_positions = num_epochs * self._training.num_patches
        return math.ceil(num_positions / self._options.batch_size)

    def _run_epoch(
        self, batches: Iterator, events: keras.callbacks.CallbackList
    ) -> None:
        state = self.state
        num_steps = self._last_step(state.epoch + 1) - state.step
        events.on_epoch_begin(state.epoch)
        start = time.monotonic()
        scores = self._train(batches, num_steps, events)
        trained = time.monotonic()
        scores |= self._validate()
        validated = time.monotonic()
        self._note(scores)
        events.on_epoch_end(state.epoch - 1, scores)
        self._save()
        num_trained = num_steps * self._options.batch_size
        run_files.append_timing(
            self._options.run_dir,
            {
                "epoch": state.epoch,
                "train_seconds": round(trained - start, 3),
                "validation_seconds": round(validated - trained, 3),
                "train_patches_per_second": round(
                    num_trained / (trained - start), 1
                ),
            },
        )

    def _train(
        self,
        batches: Iterator,
        num_steps: int,
        events: keras.callbacks.CallbackList,
    ) -> dict[str, float]:
        """Runs the steps of an epoch; returns the mean loss and accuracy."""
        sums = tf.zeros([3], tf.float64)
        num_done, steps_per_call = 0, 1
        epoch = f"epoch {self.state.epoch + 1}/{self._options.epochs}"
        total = num_steps * self._options.batch_size
        with progress.Progress(total, epoch) as bar:
            while num_done < num_steps:
                start = time.monotonic()
                count = min(steps_per_call, num_steps - num_done)
                events.on_train_batch_begin(num_done)
                sums = self._trainer.run_steps(batches, count, sums)
                num_done += count
                loss, right, seen = map(float, sums.numpy())
                if not math.isfinite(loss):
                    raise FloatingPointError(
                        f"The loss became {loss} by step"
                        f" {self.state.step + num_done}, expected a finite"
                        " number. Lower --learning_rate and pass --restart."
                    )
                logs = {"loss": loss / seen, "accuracy": right / seen}
                events.on_train_batch_end(num_done - 1, logs)
                bar.advance_to(int(seen), **logs)
                seconds_per_step = (time.monotonic() - start) / count
                steps_per_call = max(1, int(_CALL_SECONDS / seconds_per_step))
        self.state.step += num_steps
        return logs

    def _validate(self) -> dict[str, float]:
        found = self._predictor.predict(
            self._validation_batches,
            self._validation.num_patches,
            "validation",
        )
        label, logit = found["label"], found["logit"]
        return {
            "val_loss": metrics.nll(label, logit),
            "val_accuracy": float(np.mean((logit > 0) == (label > 0))),
            "val_auc": metrics.auc(label, logit),
        }

    def _note(self, scores: dict[str, float]) -> None:
        """Notes the scores of an epoch, and keeps the model if it is the best."""
        state = self.state
        state.epoch += 1
        learning_rate = float(np.asarray(self._trainer.optimizer.learning_rate))
        place = {"epoch": state.epoch, "step": state.step}
        state.history.append(place | {"learning_rate": learning_rate} | scores)
        _logger.info(
            "epoch %d/%d: %s",
            state.epoch,
            self._options.epochs,
            ", ".join(f"{name} {value:.4f}" for name, value in scores.items()),
        )
        if scores["val_auc"] > state.best_auc:
            state.best_auc, state.best_epoch = scores["val_auc"], state.epoch
            run_dir = self._options.run_dir
            temporary = os.path.join(run_dir, run_files.INCOMPLETE_MODEL)
            self._trainer.save_model(temporary)
            os.replace(temporary, os.path.join(run_dir, run_files.BEST_MODEL))

    def _save(self) -> None:
        checkpoints.write(
            self._checkpoints,
            self.state.step,
            self._trainer.variables,
            dataclasses.asdict(self.state),
        )
        run_files.write_history(self._options.run_dir, self.state.history)
