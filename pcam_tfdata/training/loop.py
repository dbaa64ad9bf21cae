"""The training loop: one for a single device, for mirrored replicas and hosts.

Keras' `fit` fails under MirroredStrategy in several ways (BUILD_NOTES.md), so
the loop is our own; networks, optimizers and callbacks are Keras'.
"""

import contextlib
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.distribution import replicas
from pcam_tfdata.evaluation import dead_network
from pcam_tfdata.pipeline import batch_format, patch_source
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import interruption, progress
from pcam_tfdata.training import (
    callback_state,
    checkpoints,
    event_files,
    nonfinite_steps,
    prepared_run,
    validator,
)

# A call into TensorFlow runs as many steps as fit in this time.
_CALL_SECONDS = 1.0
# The first call traces the graph, so its time says little of the next one's.
_CALL_GROWTH = 10
# A checkpoint within an epoch costs at most one part in as many of the time.
_SECONDS_PER_CHECKPOINT_SECOND = 100

_logger = logging.getLogger(__name__)


def train_epochs(
    run: prepared_run.PreparedRun,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains until all epochs are done, or a callback stops the run.

    Args:
        run: The run; its folder is made and locked. Its state is kept up to
            date.
        callbacks: Callbacks of Keras, to be told what happens.

    Raises:
        interruption.Interrupted: a signal came; there is a checkpoint.
        FloatingPointError: see `train.train`.
    """
    options, is_chief = run.options, run.group.is_chief
    board: contextlib.AbstractContextManager = contextlib.nullcontext()
    if options.tensorboard and is_chief:
        board = event_files.EventWriter(options.run_dir, run.state.history)
    with (
        patch_source.damage_named(run.training, run.validation),
        interruption.SignalsDeferred(errors_first=True) as signals,
        board as writer,
    ):
        _Loop(run, callbacks, signals, writer).go_on()


class _Loop:
    """A run from its state on.

    Args:
        run: The run.
        callbacks: Callbacks of Keras.
        signals: What may end the session.
        board: TensorBoard's file; None where it is not wanted.
    """

    def __init__(
        self,
        run: prepared_run.PreparedRun,
        callbacks: Sequence[keras.callbacks.Callback],
        signals: interruption.SignalsDeferred,
        board: event_files.EventWriter | None,
    ) -> None:
        self._run = run
        self._options, self._recipe = run.options, run.options.recipe
        self._group, self._trainer = run.group, run.trainer
        self._state = run.state
        self._signals = signals
        self._board = board
        self._validator = validator.Validator(
            run.validation, run.trainer.model, run.group,
            self._recipe.batch_size,
        )  # fmt: skip
        self._labels = (
            run.training.source.count_labels(), run.trainer.class_weights,
        )  # fmt: skip
        self._checkpoints = checkpoints.Writer(
            run.options.run_dir if run.group.is_chief else None,
            run.options.keep_checkpoints,
        )
        self._next_checkpoint = math.inf
        self._steps_per_call = 1
        callbacks = list(callbacks)
        if patience := run.options.early_stopping_patience:
            kind = keras.callbacks.EarlyStopping
            callbacks.append(kind("val_auc", mode="max", patience=patience))
        self._events = keras.callbacks.CallbackList(
            callbacks, model=run.trainer.model, epochs=run.options.epochs
        )
        run.trainer.model.stop_training = False
        self._events.on_train_begin()
        # Not before: they begin by forgetting everything.
        self._callback_state = callback_state.CallbackState(callbacks)
        self._callback_state.restore(run.state.callbacks)
        self._batches = self._open_batches()

    def go_on(self) -> None:
        """Trains to the end, or up to a checkpoint where a signal comes."""
        try:
            while not self._run.is_finished:
                self._run_epoch()
            self._events.on_train_end()
            self._checkpoints.wait()
            # No worker is done before the chief's last file is there.
            self._agree()
        except interruption.Interrupted:
            self._save()
            self._checkpoints.wait()
            _logger.info(
                "%s: there is a checkpoint after step %d; the same command"
                " goes on from it.", self._signals.name, self._state.step,
            )  # fmt: skip
            raise
        finally:
            self._checkpoints.wait()

    def _open_batches(self) -> Iterator:
        group = self._group
        ds = self._run.training.train_batches(
            batch_size=self._recipe.batch_size,
            seed=self._recipe.seed,
            first_step=self._state.step,
            num_steps=self._run.last_step(self._options.epochs),
            portion=batch_format.Portion(group.index, group.count),
        )
        return iter(replicas.distribute(ds, group.distribution))

    def _run_epoch(self) -> None:
        state, events = self._state, self._events
        first, start = state.step, time.monotonic()
        events.on_epoch_begin(state.epoch)
        self._train()
        trained = time.monotonic()
        with self._trainer.averaged():
            events.on_test_begin()
            label, logit = self._validate()
            scores = self._validator.score(label, logit)
            events.on_test_end(scores)
            scores = self._logs() | {f"val_{k}": v for k, v in scores.items()}
            self._note(scores, self._find_death(label, logit))
        validated = time.monotonic()
        events.on_epoch_end(state.epoch - 1, scores)
        self._agree()
        state.is_stopped = self._trainer.model.stop_training
        self._save()
        if state.epoch == 1:
            # A history says from now on that there is a checkpoint.
            self._checkpoints.wait()
        if not self._group.is_chief:
            return
        run_folder.write_history(self._options.run_dir, state.history)
        if self._board is not None:
            self._board.add(state.history[-1])
        num_trained = (state.step - first) * self._recipe.batch_size
        timing = {
            "epoch": state.epoch,
            "train_seconds": round(trained - start, 3),
            "validation_seconds": round(validated - trained, 3),
            "train_patches_per_second": round(
                num_trained / (trained - start), 1
            ),
        }
        run_folder.append_timing(self._options.run_dir, timing)

    def _train(self) -> None:
        """Runs the steps that are left of an epoch."""
        state, model = self._state, self._trainer.model
        batch_size = self._recipe.batch_size
        first = self._run.last_step(state.epoch)
        last = self._run.last_step(state.epoch + 1)
        name = f"epoch {state.epoch + 1}/{self._options.epochs}"
        self._set_clock(0.0)
        num_done = (state.step - first) * batch_size
        with progress.Progress(
            (last - first) * batch_size, name, num_done
        ) as bar:
            while state.step < last and not model.stop_training:
                self._events.on_train_batch_begin(state.step - first)
                self._call(last - state.step)
                logs = self._logs()
                self._events.on_train_batch_end(state.step - first - 1, logs)
                bar.advance_to((state.step - first) * batch_size, **logs)
                self._agree()
                self._signals.check()
                if time.monotonic() > self._next_checkpoint:
                    self._save()
                self._checkpoints.poll()

    def _call(self, num_left: int) -> None:
        """Runs some steps in one call of TensorFlow."""
        state = self._state
        count = self._options.steps_per_loop or self._steps_per_call
        count = min(count, num_left)
        start = time.monotonic()
        sums, step, is_finite = self._trainer.run_steps(
            self._batches,
            state.step,
            count,
            tf.constant(state.sums, tf.float64),
        )
        seconds_per_step = (time.monotonic() - start) / (step - state.step)
        self._steps_per_call = max(
            1, min(int(_CALL_SECONDS / seconds_per_step), _CALL_GROWTH * count)
        )
        state.sums, state.step = sums.numpy().tolist(), step
        if not is_finite:
            state.num_skipped += 1
            nonfinite_steps.handle_nonfinite_step(self._run, step - 1)

    def _agree(self) -> None:
        """Decides with the other workers what they have to do alike.

        How many steps come next, which the chief says; whether a signal has
        come, or a callback ends the run, which each of them may.
        """
        model = self._trainer.model
        answers = self._group.gather(
            [self._steps_per_call, self._signals.number, model.stop_training]
        )
        self._steps_per_call = int(answers[0, 0])
        self._signals.adopt(int(answers[:, 1].max()))
        model.stop_training = bool(answers[:, 2].any())

    def _logs(self) -> dict[str, float]:
        """Returns the scores of the epoch so far, as callbacks get them."""
        loss, right, seen = self._state.sums
        seen = seen or math.nan
        return {"loss": loss / seen, "accuracy": right / seen}

    def _validate(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels and logits of all validation patches."""
        own = {}
        # If a signal ends it here, the other workers do not know that yet.
        with contextlib.suppress(interruption.Interrupted):
            own = self._validator.predict(self._signals.check)
        self._agree()
        self._signals.check()
        return self._validator.gather(own)

    def _find_death(self, label: np.ndarray, logit: np.ndarray) -> str | None:
        """Returns why the network is dead; None where it is not."""
        loss = self._logs()["loss"]
        is_learning = dead_network.is_learning(
            loss,
            [row["loss"] for row in self._state.history],
            dead_network.untrained_loss(*self._labels),
        )
        return dead_network.find_reason(
            label,
            logit,
            loss=loss,
            entropy=dead_network.label_entropy(*self._labels),
            # A warm-up is meant to begin slowly.
            is_learning=is_learning
            or self._state.step <= self._options.optimizer.warmup_steps,
        )

    def _note(self, scores: dict[str, float], death: str | None) -> None:
        """Notes the scores of an epoch, and keeps the model if it is the best."""
        state, trainer = self._state, self._trainer
        epoch = state.epoch + 1
        row = {
            "epoch": epoch,
            "step": state.step,
            "learning_rate": trainer.learning_rate,
        }
        if trainer.loss_scale is not None:
            row["loss_scale"] = trainer.loss_scale
        texts = [f"{name} {value:.4f}" for name, value in scores.items()]
        _logger.info(
            "epoch %d/%d: %s", epoch, self._options.epochs, ", ".join(texts)
        )
        if death and self._group.is_chief:
            _logger.warning(
                "Warning: epoch %d: found a dead network: %s. %s",
                epoch, death, dead_network.TRAIN_REMEDY,
            )  # fmt: skip
        if scores["val_auc"] > state.best_auc:
            state.best_auc, state.best_epoch = scores["val_auc"], epoch
            if self._group.is_chief:
                self._save_model()
        dead = {run_folder.IS_DEAD: int(death is not None)}
        state.history.append(row | scores | dead)
        state.epoch = epoch
        state.sums = [0.0] * 3

    def _save_model(self) -> None:
        run_dir = self._options.run_dir
        temporary = os.path.join(run_dir, run_folder.INCOMPLETE_MODEL)
        self._trainer.save_model(temporary)
        os.replace(temporary, os.path.join(run_dir, run_folder.BEST_MODEL))

    def _save(self) -> None:
        """Begins to write a checkpoint."""
        start = time.monotonic()
        self._state.callbacks = self._callback_state.list_changed()
        self._checkpoints.write(self._state, self._trainer.variables)
        self._set_clock(time.monotonic() - start)

    def _set_clock(self, seconds: float) -> None:
        """Sets when the next checkpoint is due, by what the last one took."""
        self._next_checkpoint = time.monotonic() + max(
            self._options.checkpoint_every_seconds,
            seconds * _SECONDS_PER_CHECKPOINT_SECOND,
        )
