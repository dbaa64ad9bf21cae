"""Scores of a network on all validation patches, shared by all workers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from pcam_tfdata.distribution import worker_group
from pcam_tfdata.evaluation import metrics
from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import batch_format, patch_source


class Validator:
    """Scores one network, as often as asked.

    Args:
        patches: What to score.
        model: Takes uint8 [B, 96, 96, 3], gives a logit [B, 1].
        group: The workers, of which each takes a part of each batch.
        batch_size: Patches of a batch, over all workers.
    """

    def __init__(
        self,
        patches: patch_source.Patches,
        model: keras.Model,
        group: worker_group.WorkerGroup,
        batch_size: int,
    ) -> None:
        self._num_patches = patches.num_patches
        self._group = group
        self._predictor = inference.Predictor(
            model, group.distribution, patches.fill
        )
        portion = batch_format.Portion(group.index, group.count)
        self._batches = patches.eval_batches(
            batch_size=batch_size, portion=portion
        )
        self._indices = portion.indices_of_all(self._num_patches, batch_size)

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
        label, logit = self._group.sum(whole)
        return label.astype(np.int64), logit.astype(np.float32)

    def score(self, label: np.ndarray, logit: np.ndarray) -> dict[str, float]:
        """Returns `loss`, `accuracy` and `auc` of all patches."""
        scores: dict[str, Any] = {
            "loss": metrics.nll(label, logit),
            "accuracy": float(np.mean((logit > 0) == (label > 0))),
            "auc": metrics.auc(label, logit),
        }
        # The chief's: decisions hang on them, and machines differ in last bits.
        chief, *_ = self._group.gather(list(scores.values())).tolist()
        return dict(zip(scores, chief, strict=True))
