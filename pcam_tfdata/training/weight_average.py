"""A moving average of the weights of a network."""

import contextlib
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf


class WeightAverage:
    """An exponential moving average of weights (Polyak & Juditsky 1992).

    The weights of k updates ago count `decay` to the k-th, and these shares are
    divided by their sum: the start of training counts for no more than that, as
    in the averages of Adam (Kingma & Ba 2015).

    Args:
        weights: Those of the network, and its statistics of batch
            normalization; call it in the scope of its strategy.
        decay: At least 0, less than 1.

    Attributes:
        variables: What a checkpoint has to hold.
    """

    def __init__(self, weights: Sequence[keras.Variable], decay: float) -> None:
        self._weights, self._decay = weights, decay
        self._num_updates = keras.Variable(0, dtype="int64", trainable=False)
        self._average = [
            keras.Variable(np.asarray(w), dtype=w.dtype, trainable=False)
            for w in weights
        ]
        self.variables = [self._num_updates, *self._average]

    def update(self) -> None:
        """Takes the weights in; called outside of replicas, in a graph."""
        count = tf.cast(self._num_updates.value, tf.float64)
        decay = tf.constant(self._decay, tf.float64)
        # The first update takes the weights as they are.
        decay *= (1 - decay**count) / (1 - decay ** (count + 1))
        decay = tf.cast(decay, self._weights[0].dtype)
        for weight, average in zip(self._weights, self._average, strict=True):
            old = tf.convert_to_tensor(average.value)
            new = tf.convert_to_tensor(weight.value)
            average.assign(decay * old + (1 - decay) * new)
        self._num_updates.assign_add(1)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Lets the network have the average in place of its weights."""
        saved = [np.array(weight.numpy()) for weight in self._weights]
        assign(self._weights, self._average)
        try:
            yield
        finally:
            assign(self._weights, saved)


def assign(
    variables: Sequence[keras.Variable], values: Sequence[object]
) -> None:
    """Gives each variable its value: an array, or another variable's."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.asarray(value))
