"""Scores of a network on all validation patches, of which workers share each batch."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.distribution import cluster
from pcam_tfdata.evaluation import metrics
from pcam_tfdata.models import inference
from pcam_tfdata.pipeline import patch_source


class Validator:
    """Scores one network, as often as asked.

    Args:
        patches: To score.
        model: Takes uint8 [B, 96, 96, 3], gives a logit [B, 1].
        distribution: In whose scope the model was made.
        batch_size: Over all replicas of all workers.
        group: The workers.
    """

    def __init__(
        self,
        patches: patch_source.Patches,
        model: keras.Model,
        distribution: tf.distribute.Strategy,
        batch_size: int,
        group: cluster.Group,
    ) -> None:
        self._num_patches = patches.num_patches
        self._group = group
        self._predictor = inference.Predictor(model, distribution, patches.fill)
        portion = patch_source.Portion(group.index, group.count)
        self._batches = patches.eval_batches(
            batch_size=batch_size, portion=portion
        )
        self._places = portion.places_of_all(self._num_patches, batch_size)

    def predict(self, check: Callable[[], None]) -> dict[str, np.ndarray]:
        """Returns what the network says of this worker's patches.

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

    def gather(
        self, found: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns labels (int64) and logits (float32) of all workers' patches."""
        whole = np.zeros((2, self._num_patches))
        whole[:, self._places] = found["label"], found["logit"]
        label, logit = self._group.sum(whole)
        return label.astype(np.int64), logit.astype(np.float32)

    def score(self, label: np.ndarray, logit: np.ndarray) -> dict[str, float]:
        """Returns `loss`, `accuracy` and `auc` of all patches."""
        scores = {
            "loss": metrics.nll(label, logit),
            "accuracy": float(np.mean((logit > 0) == (label > 0))),
            "auc": metrics.auc(label, logit),
        }
        # The chief's: decisions hang on them, and machines differ in last bits.
        chief, *_ = self._group.gather(list(scores.values())).tolist()
        return dict(zip(scores, chief, strict=True))
