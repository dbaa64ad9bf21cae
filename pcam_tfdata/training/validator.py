"""Scores of a network on all validation patches, shared by all workers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from pcam_tfdata.evaluation import calibration, dead_network, metrics
from pcam_tfdata.models import inference
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import calibration_file, run_folder
from pcam_tfdata.training import prepared_run


class Validator:
    """Scores the network of a run, as often as asked."""

    def __init__(self, run: prepared_run.PreparedRun) -> None:
        self._run = run
        patches, batch_size = run.validation, run.options.recipe.batch_size
        self._num_patches = patches.num_patches
        self._predictor = inference.Predictor(
            run.trainer.model, run.group.strategy, patches.fill
        )
        self._batches = patches.eval_batches(
            batch_size=batch_size, portion=run.portion
        )
        self._indices = run.portion.indices_of_all(
            self._num_patches, batch_size
        )

    def predict(self, check: Callable[[], None]) -> inference.Logits:
        """Returns labels and logits of this worker's patches.

        It waits for no other worker.

        Args:
            check: Called after each batch; what it raises ends them.

        Raises:
            FloatingPointError: a logit is not finite.
        """
        return inference.join(
            self._predictor.stream(
                self._batches, self._num_patches, "validation", check
            )
        )

    def gather(self, own: inference.Logits) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels (int64) and logits (float32) of all workers' patches."""
        whole = np.zeros((2, self._num_patches))
        whole[:, self._indices] = own["label"], own["logit"]
        label, logit = self._run.group.sum(whole)
        return label.astype(np.int64), logit.astype(np.float32)

    def score(self, label: np.ndarray, logit: np.ndarray) -> dict[str, float]:
        """Returns `loss`, `accuracy` and `auc` of all patches.

        The chief's: decisions hang on them, and machines differ in last bits.
        """
        scores: dict[str, Any] = {
            "loss": metrics.nll(label, logit),
            "accuracy": float(np.mean((logit > 0) == (label > 0))),
            "auc": metrics.auc(label, logit),
        }
        return self._run.group.broadcast(scores)

    def calibrate(self, label: np.ndarray, logit: np.ndarray) -> None:
        """Writes the calibration of the run's best model, whose logits these are."""
        run_dir = self._run.options.run_dir
        sha256 = manifest.hash_file(run_folder.find_model(run_dir))
        fitted = calibration.fit(label, logit)
        calibration_file.write(run_dir, "none", sha256, fitted)

    def find_death(
        self, label: np.ndarray, logit: np.ndarray, train_loss: float
    ) -> str | None:
        """Returns why the network is dead; None where it is not."""
        run = self._run
        smoothing = run.options.recipe.label_smoothing
        counts = np.array(run.training.source.count_labels())
        counts = counts * (1 - smoothing) + counts.sum() * smoothing / 2
        labels = tuple(counts.tolist()), run.trainer.class_weights
        is_learning = dead_network.is_learning(
            train_loss, [row["loss"] for row in run.state.history], *labels
        )
        # A warm-up is meant to begin slowly.
        warms_up = run.state.step <= run.options.optimizer.warmup_steps
        return dead_network.find_reason(
            label,
            logit,
            loss=train_loss,
            entropy=dead_network.label_entropy(*labels),
            is_learning=is_learning or warms_up,
        )
