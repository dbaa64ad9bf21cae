"""The training loop: one for a single device, for mirrored replicas and hosts.

Keras' `fit` fails under MirroredStrategy in several ways (BUILD_NOTES.md), so
the loop is our own; networks, optimizers and callbacks are Keras'.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.distribution import cluster, strategy
from pcam_tfdata.evaluation import dead_network
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.runs import checkpoint_files, event_files, run_folder
from pcam_tfdata.system import interruption, progress
from pcam_tfdata.training import (
    callback_state,
    checkpoints,
    configuration,
    nonfinite_steps,
    replica_step,
    validator,
)

# A call into TensorFlow runs as many steps as fit in this time.
_CALL_SECONDS = 1.0
# The first call traces the graph, so its time says little of the next one's.
_CALL_GROWTH = 10
# A checkpoint within an epoch costs at most one part in as many of the time.
_SECONDS_PER_CHECKPOINT_SECOND = 100

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Session:
    """What is there while a run goes on.

    Attributes:
        batches: Of the steps from the first one on.
        callbacks: Of Keras.
        fresh: What they remembered when they began.
        events: The same, to be told what happens.
        board: TensorBoard's file; None where it is not wanted.
        signals: What may end the session.
    """

    batches: Iterator
    callbacks: Sequence[keras.callbacks.Callback]
    fresh: list[dict[str, object]]
    events: keras.callbacks.CallbackList
    board: event_files.EventWriter | None
    signals: interruption.SignalsDeferred


class Loop:
    """A run from its last checkpoint on.

    Args:
        options: The run; its folder is made and locked.
        distribution: Strategy on whose replicas it runs.
        stepped: The network, new.
        training: Patches to train on.
        validation: Patches to score.
        group: Who run it together; only the chief writes.

    Attributes:
        state: How far it is.
        training: As given.
        validation: As given.
    """

    def __init__(
        self,
        options: configuration.TrainOptions,
        distribution: tf.distribute.Strategy,
        stepped: replica_step.Trainer,
        training: patch_source.Patches,
        validation: patch_source.Patches,
        group: cluster.Group,
    ) -> None:
        self.training = training
        self.validation = validation
        self._options = options
        self._distribution = distribution
        self._trainer = stepped
        self._group = group
        self._validator = validator.Validator(
            validation, stepped.model, distribution, options.batch_size, group
        )
        self._labels = (
            training.source.count_labels(), stepped.recipe.class_weights,
        )  # fmt: skip
        folder = os.path.join(options.run_dir, run_folder.CHECKPOINTS)
        self.state = self._restore(folder)
        self._checkpoints = checkpoints.Writer(
            folder if group.is_chief else None, options.keep_checkpoints
        )
        self._next_checkpoint = math.inf
        self._steps_per_call = 1
        if group.is_chief:
            # What came after the checkpoint is dropped, and will come again.
            run_folder.write_history(options.run_dir, self.state.history)

    def is_finished(self) -> bool:
        """Returns whether nothing is left to do."""
        state = self.state
        return state.is_stopped or state.epoch >= self._options.epochs

    def go_on(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Trains until all epochs are done, or a callback stops it.

        Raises:
            interruption.Interrupted: a signal came; there is a checkpoint.
            FloatingPointError: see `train.train`.
        """
        callbacks = [*callbacks, *self._own_callbacks()]
        events = keras.callbacks.CallbackList(
            callbacks, model=self._trainer.model, epochs=self._options.epochs
        )
        self._trainer.model.stop_training = False
        with (
            patch_source.damage_named(self.training, self.validation),
            interruption.SignalsDeferred() as signals,
            self._open_board() as board,
        ):
            events.on_train_begin()
            # Not before: they begin by forgetting everything.
            fresh = callback_state.get(callbacks)
            callback_state.set(callbacks, self.state.callbacks)
            session = _Session(
                self._open_batches(), callbacks, fresh, events, board, signals
            )
            try:
                while not self.is_finished():
                    self._run_epoch(session)
                events.on_train_end()
                self._checkpoints.wait()
                # No worker is done before the chief's last file is there.
                self._agree(session)
            except interruption.Interrupted:
                self._save(session)
                _logger.info(
                    "%s: there is a checkpoint after step %d; the same command"
                    " goes on from it.", signals.name, self.state.step,
                )  # fmt: skip
                raise
            finally:
                self._checkpoints.wait()

    def _restore(self, folder: str) -> checkpoint_files.State:
        """Returns the state of the chief's last checkpoint, for all workers."""
        variables = self._trainer.variables
        found = None
        if self._group.is_chief:
            found = checkpoints.restore_latest(folder, variables)
        if self._group.count > 1:
            text = self._group.bytes_of_chief(json.dumps(found).encode())
            found = json.loads(text)
            for variable in variables:
                value = np.asarray(variable.value)
                variable.assign(self._group.array_of_chief(value))
        self._trainer.restored()
        return (
            checkpoint_files.State(**found)
            if found
            else checkpoint_files.State()
        )

    def _open_board(self) -> contextlib.AbstractContextManager:
        if not (self._options.tensorboard and self._group.is_chief):
            return contextlib.nullcontext()
        return event_files.EventWriter(
            self._options.run_dir, self.state.history
        )

    def _own_callbacks(self) -> list[keras.callbacks.Callback]:
        patience = self._options.early_stopping_patience
        if not patience:
            return []
        return [
            keras.callbacks.EarlyStopping(
                monitor="val_auc", mode="max", patience=patience
            )
        ]

    def _open_batches(self) -> Iterator:
        options = self._options
        ds = self.training.train_batches(
            batch_size=options.batch_size,
            seed=options.seed,
            first_step=self.state.step,
            num_steps=self._last_step(options.epochs),
            portion=patch_source.Portion(self._group.index, self._group.count),
        )
        return iter(strategy.distribute(ds, self._distribution))

    def _last_step(self, num_epochs: int) -> int:
        return configuration.last_step(
            num_epochs, self.training.num_patches, self._options.batch_size
        )

    def _run_epoch(self, session: _Session) -> None:
        state = self.state
        events = session.events
        first = state.step
        start = time.monotonic()
        events.on_epoch_begin(state.epoch)
        self._train(session)
        trained = time.monotonic()
        with self._trainer.averaged():
            events.on_test_begin()
            label, logit = self._validate(session)
            scores = self._validator.score(label, logit)
            events.on_test_end(scores)
            scores = self._logs() | {f"val_{k}": v for k, v in scores.items()}
            self._note(scores, self._find_death(label, logit))
        seconds = time.monotonic() - trained
        events.on_epoch_end(state.epoch - 1, scores)
        self._agree(session)
        state.is_stopped = self._trainer.model.stop_training
        self._save(session)
        if state.epoch == 1:
            # A history says from now on that there is a checkpoint.
            self._checkpoints.wait()
        if self._group.is_chief:
            run_folder.write_history(self._options.run_dir, state.history)
            if session.board is not None:
                session.board.add(state.history[-1])
            self._note_timing(state.step - first, trained - start, seconds)

    def _train(self, session: _Session) -> None:
        """Runs the steps that are left of an epoch."""
        state, options = self.state, self._options
        first = self._last_step(state.epoch)
        last = self._last_step(state.epoch + 1)
        name = f"epoch {state.epoch + 1}/{options.epochs}"
        self._set_clock(0.0)
        total = (last - first) * options.batch_size
        done = (state.step - first) * options.batch_size
        with progress.Progress(total, name, done) as bar:
            while state.step < last and not self._trainer.model.stop_training:
                session.events.on_train_batch_begin(state.step - first)
                self._call(session.batches, last - state.step)
                logs = self._logs()
                session.events.on_train_batch_end(state.step - first - 1, logs)
                bar.advance_to(
                    (state.step - first) * options.batch_size, **logs
                )
                self._agree(session)
                session.signals.check()
                if time.monotonic() > self._next_checkpoint:
                    self._save(session)
                self._checkpoints.poll()

    def _call(self, batches: Iterator, num_left: int) -> None:
        """Runs some steps in one call of TensorFlow."""
        state, options = self.state, self._options
        count = min(options.steps_per_loop or self._steps_per_call, num_left)
        start = time.monotonic()
        sums, step, is_finite = self._trainer.run_steps(
            batches, state.step, count, tf.constant(state.sums, tf.float64)
        )
        seconds_per_step = (time.monotonic() - start) / (step - state.step)
        self._steps_per_call = max(
            1, min(int(_CALL_SECONDS / seconds_per_step), _CALL_GROWTH * count)
        )
        state.sums, state.step = sums.numpy().tolist(), step
        if not is_finite:
            state.num_skipped += 1
            nonfinite_steps.meet(
                step - 1, state.num_skipped, options, self._trainer,
                self.training, is_chief=self._group.is_chief,
            )  # fmt: skip

    def _agree(self, session: _Session) -> None:
        """Decides with the other workers what they have to do alike.

        How many steps come next, which the chief says; whether a signal has
        come, or a callback ends the run, which each of them may.
        """
        model = self._trainer.model
        found = self._group.gather(
            [self._steps_per_call, session.signals.number, model.stop_training]
        )
        self._steps_per_call = int(found[0, 0])
        session.signals.adopt(int(found[:, 1].max()))
        model.stop_training = bool(found[:, 2].any())

    def _logs(self) -> dict[str, float]:
        """Returns the scores of the epoch so far, as callbacks get them."""
        loss, right, seen = self.state.sums
        seen = seen or math.nan
        return {"loss": loss / seen, "accuracy": right / seen}

    def _validate(self, session: _Session) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels and logits of all validation patches."""
        found = None
        # If a signal ends it here, the other workers do not know that yet.
        with contextlib.suppress(interruption.Interrupted):
            found = self._validator.predict(session.signals.check)
        self._agree(session)
        session.signals.check()
        return self._validator.gather(found)

    def _find_death(self, label: np.ndarray, logit: np.ndarray) -> str | None:
        """Returns why the network is dead; None where it is not."""
        loss = self._logs()["loss"]
        is_learning = dead_network.is_learning(
            loss,
            [row["loss"] for row in self.state.history],
            dead_network.untrained_loss(*self._labels),
        )
        return dead_network.find_reason(
            label,
            logit,
            loss=loss,
            entropy=dead_network.label_entropy(*self._labels),
            # A warm-up is meant to begin slowly.
            is_learning=is_learning
            or self.state.step <= self._options.warmup_steps,
        )

    def _note(self, scores: dict[str, float], death: str | None) -> None:
        """Notes the scores of an epoch, and keeps the model if it is the best."""
        state, options = self.state, self._options
        row = {"epoch": state.epoch + 1, "step": state.step}
        row["learning_rate"] = self._trainer.learning_rate
        if self._trainer.loss_scale is not None:
            row["loss_scale"] = self._trainer.loss_scale
        _logger.info(
            "epoch %d/%d: %s",
            state.epoch + 1,
            options.epochs,
            ", ".join(f"{name} {value:.4f}" for name, value in scores.items()),
        )
        if death and self._group.is_chief:
            _logger.warning(
                "Warning: epoch %d: found a dead network: %s. %s",
                row["epoch"], death, dead_network.TRAIN_REMEDY,
            )  # fmt: skip
        if scores["val_auc"] > state.best_auc:
            state.best_auc, state.best_epoch = scores["val_auc"], row["epoch"]
            if self._group.is_chief:
                self._save_model()
        dead = {run_folder.IS_DEAD: int(death is not None)}
        state.history.append(row | scores | dead)
        state.epoch += 1
        state.sums = [0.0] * 3

    def _save_model(self) -> None:
        run_dir = self._options.run_dir
        temporary = os.path.join(run_dir, run_folder.INCOMPLETE_MODEL)
        self._trainer.save_model(temporary)
        os.replace(temporary, os.path.join(run_dir, run_folder.BEST_MODEL))

    def _save(self, session: _Session) -> None:
        """Begins to write a checkpoint."""
        start = time.monotonic()
        self.state.callbacks = callback_state.get(
            session.callbacks, session.fresh
        )
        self._checkpoints.write(
            self.state.step,
            self._trainer.variables,
            dataclasses.asdict(self.state),
        )
        self._set_clock(time.monotonic() - start)

    def _set_clock(self, seconds: float) -> None:
        """Sets when the next checkpoint is due, by what the last one took."""
        self._next_checkpoint = time.monotonic() + max(
            self._options.checkpoint_every_seconds,
            seconds * _SECONDS_PER_CHECKPOINT_SECOND,
        )

    def _note_timing(
        self, num_steps: int, train_seconds: float, validation_seconds: float
    ) -> None:
        num_trained = num_steps * self._options.batch_size
        run_folder.append_timing(
            self._options.run_dir,
            {
                "epoch": self.state.epoch,
                "train_seconds": round(train_seconds, 3),
                "validation_seconds": round(validation_seconds, 3),
                "train_patches_per_second": round(
                    num_trained / train_seconds, 1
                ),
            },
        )
