"""A network and its optimizer, stepped on the replicas of a strategy."""

from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from pcam_tfdata import checkpoints, models, pipeline, strategy

_OPTIMIZERS = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}


class Trainer:
    """A network and its optimizer.

    Args:
        distribution: Strategy on whose replicas steps run.
        model: One of `choices.MODELS`.
        optimizer: One of `choices.OPTIMIZERS`.
        learning_rate: For the mean of the loss over the whole batch.
        batch_size: Patches of a step, over all replicas.
        precision: Policy of Keras.
        seed: Of weights and dropout.
        fill: Called on each replica's part of a batch, see
            `pipeline.open_patches`.

    Attributes:
        model: The network.
        optimizer: Of Keras; under mixed_float16 with a dynamic loss scale.
        variables: All of both, as checkpoints hold them.
    """

    def __init__(
        self,
        distribution: tf.distribute.Strategy,
        *,
        model: str,
        optimizer: str,
        learning_rate: float,
        batch_size: int,
        precision: str,
        seed: int,
        fill: Callable[[pipeline.Batch], pipeline.Batch] = pipeline.whole,
    ) -> None:
        self._distribution = distribution
        self._batch_size = batch_size
        self._fill = fill
        strategy.reset_keras(precision, seed)
        with distribution.scope():
            self.model = models.build(model)
            self.optimizer = _OPTIMIZERS[optimizer](learning_rate)
            if strategy.scales_loss(precision):
                self.optimizer = keras.optimizers.LossScaleOptimizer(
                    self.optimizer
                )
            self.optimizer.build(self.model.trainable_variables)
        self.model.optimizer = self.optimizer  # For callbacks.
        self.variables = checkpoints.variables_of(self.model, self.optimizer)
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
        batch = self._fill(batch)
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
