"""A network and batches to logits, each patch once."""

import logging
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata import pipeline, progress

_logger = logging.getLogger(__name__)


class Predictor:
    """Runs a network forward over batches, on the replicas of a strategy.

    Args:
        model: Takes uint8 [B, 96, 96, 3], gives a logit [B, 1].
        strategy: In whose scope the model was made.
        fill: Called on each replica's part of a batch, see
            `pipeline.open_patches`.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        fill: Callable[[pipeline.Batch], pipeline.Batch] = pipeline.whole,
    ) -> None:
        self._strategy = strategy

        def forward(batch: pipeline.Batch) -> pipeline.Batch:
            batch = fill(batch)
            logit = model(batch["image"], training=False)[:, 0]
            kept = {name: batch[name] for name in ("label", "row", "mask")}
            return kept | {"logit": logit}

        self._step = tf.function(
            lambda batch: strategy.run(forward, args=(batch,)),
            reduce_retracing=True,
        )

    def predict(
        self, batches: tf.data.Dataset, num_patches: int, description: str
    ) -> dict[str, np.ndarray]:
        """Returns `row`, `label` (int64) and `logit` (float32) of each patch.

        Args:
            batches: Of `pipeline.eval_batches`: one static size, masked.
            num_patches: How many there are, for the progress bar.
            description: For the progress bar.

        Raises:
            FloatingPointError: a logit is not finite.
        """
        parts: list[dict[str, np.ndarray]] = []
        num_done = 0
        distributed = self._strategy.experimental_distribute_dataset(batches)
        with progress.Progress(num_patches, description) as bar:
            for batch in distributed:
                parts.append(self._gather(self._step(batch)))
                num_done += len(parts[-1]["row"])
                bar.advance_to(num_done)
        found = {
            name: np.concatenate([part[name] for part in parts])
            for name in ("row", "label", "logit")
        }
        num_bad = np.count_nonzero(~np.isfinite(found["logit"]))
        if num_bad:
            raise FloatingPointError(
                f"{description}: found {num_bad:,} logits that are no finite"
                " numbers. The weights have diverged: train anew with a lower"
                " --learning_rate."
            )
        return found

    def _gather(self, outputs: pipeline.Batch) -> dict[str, np.ndarray]:
        whole = {
            name: np.concatenate(self._local(part))
            for name, part in outputs.items()
        }
        mask = whole.pop("mask")
        return {name: part[mask] for name, part in whole.items()}

    def _local(self, part: tf.Tensor) -> Iterable[np.ndarray]:
        results = self._strategy.experimental_local_results(part)
        return [np.asarray(result) for result in results]


def predict_all(
    patches: pipeline.Patches | pipeline.ImageFiles,
    model_path: str,
    strategy: tf.distribute.Strategy,
    batch_size: int,
    description: str,
) -> dict[str, np.ndarray]:
    """Returns what a saved network says of patches, see `Predictor.predict`.

    Args:
        patches: Of `pipeline.open_patches`, or files.
        model_path: A `.keras` file.
        strategy: On whose replicas it runs.
        batch_size: Patches of a forward pass, over all replicas.
        description: For the progress bar.

    Raises:
        ValueError: the model or a record is damaged.
        FloatingPointError: a logit is not finite.
    """
    predictor = load(model_path, strategy, patches.fill)
    num_patches = patches.num_patches
    batch_size = pipeline.fit_batch_size(batch_size, num_patches)
    batches = patches.eval_batches(batch_size=batch_size)
    if patches.plan:
        _logger.info("Input: %s.", patches.plan)
    with pipeline.damage_named(patches):
        return predictor.predict(batches, num_patches, description)


def load(
    path: str,
    strategy: tf.distribute.Strategy,
    fill: Callable[[pipeline.Batch], pipeline.Batch] = pipeline.whole,
) -> Predictor:
    """Returns a predictor of a `.keras` file; arguments as for `Predictor`.

    Raises:
        ValueError: the file is damaged or holds no such network.
    """
    try:
        with strategy.scope():
            model = keras.models.load_model(path)
    except Exception as error:  # Keras raises anything on bad bytes.
        raise ValueError(
            f"{path}: found no network that Keras can load"
            f" ({' '.join(str(error).split())[:200]}). Train again."
        ) from error
    return Predictor(model, strategy, fill)
