"""What comes before the head of a network: when and how fast it trains."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from pcam_tfdata.models import classifier_head


class Backbone:
    """All layers of a network but the one of the logit.

    Pretrained layers are lost where the gradients of a head that knows
    nothing reach them. So they may be frozen until it does, and learn more
    slowly from then on (Howard & Ruder 2018).

    Args:
        model: The network.
        optimizer: Its optimizer, whose `apply` steps all of its weights.
        num_frozen_steps: First steps, in which only the head trains.
        learning_rate_factor: Of the backbone's learning rate after these.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.Optimizer,
        num_frozen_steps: int = 0,
        learning_rate_factor: float = 1.0,
    ) -> None:
        self._layers = [
            layer
            for layer in model.layers
            if layer.name not in classifier_head.LAYERS
        ]
        self._weights = [
            weight
            for layer in self._layers
            for weight in layer.trainable_weights
        ]
        self._all_weights = list(model.trainable_weights)
        self._optimizer = optimizer
        self._factor = learning_rate_factor
        self.num_frozen_steps = num_frozen_steps

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Leaves only the weights of the head for Keras to train.

        Batch normalization keeps its statistics and uses them, as in inference.
        """
        for layer in self._layers:
            layer.trainable = False
        try:
            yield
        finally:
            for layer in self._layers:
                layer.trainable = True

    def complete(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns a gradient of each weight, 0 of those that are frozen now.

        Args:
            gradients: Of `model.trainable_weights`.
        """
        # Replicas have to agree on all weights, and so does the optimizer.
        given = iter(gradients)
        return [
            next(given) if weight.trainable else tf.zeros_like(weight.value)
            for weight in self._all_weights
        ]

    @contextlib.contextmanager
    def slowed(self, is_frozen: bool) -> Iterator[None]:
        """Takes back a part of what a step of the optimizer does to the weights.

        All of it while they are frozen: decay would shrink them. Outside of
        replicas, in a graph.
        """
        if self._factor == 1 and not self.num_frozen_steps:
            yield
            return
        before = [tf.convert_to_tensor(w.value) for w in self._weights]
        yield
        share = 0.0 if is_frozen else self._factor * self._late_start()
        for weight, old in zip(self._weights, before, strict=True):
            new = tf.convert_to_tensor(weight.value)
            weight.assign(old + tf.cast(share, old.dtype) * (new - old))

    def _late_start(self) -> tf.Tensor | float:
        """Returns the factor that Adam's bias correction lacks after freezing.

        Adam divides its averages of the gradient by what they lack of their
        full weight after so many steps (Kingma & Ba 2015). Those of weights
        that were frozen are younger than the optimizer believes; without this,
        their first step would be three times as long as that of new weights.
        """
        inner = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        if not self.num_frozen_steps or not hasattr(inner, "beta_2"):
            return 1.0
        steps = tf.cast(
            tf.convert_to_tensor(inner.iterations.value), tf.float64
        )
        own = tf.maximum(steps - self.num_frozen_steps, 1)

        def correction(count: tf.Tensor) -> tf.Tensor:
            beta_1, beta_2 = (
                tf.constant(beta, tf.float64)
                for beta in (inner.beta_1, inner.beta_2)
            )
            return tf.sqrt(1 - beta_2**count) / (1 - beta_1**count)

        return correction(own) / correction(steps)
