"""The training loop: one for a single device, for mirrored replicas and hosts.

Keras' `fit` fails under MirroredStrategy in several ways (BUILD_NOTES.md), so
the loop is our own; networks, optimizers and callbacks are Keras'.
"""

import contextlib
import logging
import math
import os
import time
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.distribution import replicas
from pcam_tfdata.evaluation import dead_network
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import interruption, progress
from pcam_tfdata.training import (
    callback_state,
    checkpoints,
    event_files,
    prepared_run,
    validator,
)

# A call into TensorFlow runs as many steps as fit in this time.
_CALL_SECONDS = 1.0
# The first call traces the graph, so its time says little of the next one's.
_CALL_GROWTH = 10
MOST_SKIPPED = 20

_logger = logging.getLogger(__name__)


def train_epochs(
    run: prepared_run.PreparedRun, callbacks: Sequence[keras.callbacks.Callback]
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
    with (
        patch_source.damage_named(run.training, run.validation),
        interruption.SignalsDeferred(errors_first=True) as signals,
    ):
        _Loop(run, callbacks, signals).go_on()


class _Loop:
    """A run from its state on.

    Args:
        run: The run.
        callbacks: Callbacks of Keras.
        signals: What may end the session.
    """

    def __init__(
        self,
        run: prepared_run.PreparedRun,
        callbacks: Sequence[keras.callbacks.Callback],
        signals: interruption.SignalsDeferred,
    ) -> None:
        self._run, self._signals = run, signals
        self._options, self._recipe = run.options, run.options.recipe
        self._group, self._trainer = run.group, run.trainer
        self._state = run.state
        self._is_chief = run.group.job.is_chief
        self._validator = validator.Validator(run)
        self._checkpoints = checkpoints.Writer(
            run.options.run_dir, run.options.keep_checkpoints
        )
        self._board = None  # Of TensorBoard.
        if run.options.tensorboard and self._is_chief:
            self._board = event_files.EventWriter(
                run.options.run_dir, run.state.history
            )
        self._checkpoint_time = time.monotonic()
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
        batches = run.training.train_batches(
            batch_size=self._recipe.batch_size,
            seed=self._recipe.seed,
            first_step=run.state.step,
            num_steps=run.last_step(run.options.epochs),
            portion=run.portion,
        )
        self._batches = iter(replicas.distribute(batches, run.group.strategy))

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
            self._note(label, logit, scores)
        validated = time.monotonic()
        events.on_epoch_end(state.epoch - 1, scores)
        self._agree()
        state.is_stopped = self._trainer.model.stop_training
        self._save()
        if state.epoch == 1:
            # A history says from now on that there is a checkpoint.
            self._checkpoints.wait()
        if not self._is_chief:
            return
        run_folder.write_history(self._options.run_dir, state.history)
        if self._board is not None:
            self._board.add(state.history[-1])
        seconds = trained - start
        rate = (state.step - first) * self._recipe.batch_size / seconds
        timing = {
            "epoch": state.epoch,
            "train_seconds": round(seconds, 3),
            "validation_seconds": round(validated - trained, 3),
            "train_patches_per_second": round(rate, 1),
        }
        run_folder.append_timing(self._options.run_dir, timing)

    def _train(self) -> None:
        """Runs the steps that are left of an epoch."""
        state, model = self._state, self._trainer.model
        batch_size = self._recipe.batch_size
        first = self._run.last_step(state.epoch)
        last = self._run.last_step(state.epoch + 1)
        with progress.Progress(
            (last - first) * batch_size,
            f"epoch {state.epoch + 1}/{self._options.epochs}",
            (state.step - first) * batch_size,
        ) as bar:
            while state.step < last and not model.stop_training:
                self._events.on_train_batch_begin(state.step - first)
                self._call(last - state.step)
                logs = self._logs()
                self._events.on_train_batch_end(state.step - first - 1, logs)
                bar.advance_to((state.step - first) * batch_size, **logs)
                self._agree()
                self._signals.check()
                waited = time.monotonic() - self._checkpoint_time
                if waited > self._options.checkpoint_every_seconds:
                    self._save()

    def _call(self, num_left: int) -> None:
        """Runs some steps in one call of TensorFlow."""
        state = self._state
        count = self._options.steps_per_loop or self._steps_per_call
        count = min(count, num_left)
        start = time.monotonic()
        sums = tf.constant(state.sums, tf.float64)
        sums, step, is_finite = self._trainer.run_steps(
            self._batches, state.step, count, sums
        )
        seconds_per_step = (time.monotonic() - start) / (step - state.step)
        self._steps_per_call = max(
            1, min(int(_CALL_SECONDS / seconds_per_step), _CALL_GROWTH * count)
        )
        state.sums, state.step = sums.numpy().tolist(), step
        if not is_finite:
            state.num_skipped += 1
            self._handle_nonfinite_step(step - 1)

    def _handle_nonfinite_step(self, step: int) -> None:
        """Logs that a step is left out, or stops the run.

        Raises:
            FloatingPointError: as the options say, or there were too many.
        """
        factors = " and ".join(
            f"{name.replace('_', ' ')} {value:g}"
            for name, value in self._trainer.factors.items()
        )
        fault = (
            f"found a loss or gradient that is not finite in step {step}, at"
            f" {factors}"
        )
        skips = self._options.on_nan == "skip"
        if skips and self._state.num_skipped <= MOST_SKIPPED:
            _logger.warning("%s; the step is skipped.", fault)
            return
        raise FloatingPointError(
            f"{self._options.run_dir}: {fault}. Lower --learning_rate and pass"
            f" --restart; --on_nan=skip leaves out such steps, {MOST_SKIPPED} of"
            " a run at most."
        )

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

    def _note(
        self, label: np.ndarray, logit: np.ndarray, scores: dict[str, float]
    ) -> None:
        """Notes the scores of an epoch, and keeps the model if it is the best."""
        state, trainer = self._state, self._trainer
        death = self._validator.find_death(label, logit, scores["loss"])
        epoch = state.epoch + 1
        row = {"epoch": epoch, "step": state.step, **trainer.factors}
        texts = [f"{name} {value:.4f}" for name, value in scores.items()]
        _logger.info(
            "epoch %d/%d: %s", epoch, self._options.epochs, ", ".join(texts)
        )
        if death and self._is_chief:
            _logger.warning(
                "Warning: epoch %d: found a dead network: %s. %s",
                epoch, death, dead_network.TRAIN_REMEDY,
            )  # fmt: skip
        if scores["val_auc"] > state.best_auc:
            state.best_auc, state.best_epoch = scores["val_auc"], epoch
            if self._is_chief:
                self._save_model()
                # Of this very file: a kill in between leaves it uncalibrated
                # until the run goes on, which repeats the epoch.
                self._validator.calibrate(label, logit)
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
        self._checkpoint_time = time.monotonic()
        self._state.callbacks = self._callback_state.list_changed()
        if self._is_chief:
            self._checkpoints.write(self._state, self._trainer.variables)
