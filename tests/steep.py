"""A network whose gradients are too large."""

import keras
import tensorflow as tf


class Steep(keras.layers.Layer):
    """Leaves values alone, and multiplies their gradient."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        @tf.custom_gradient
        def pass_on(x):
            return tf.identity(x), lambda gradient: gradient * self.factor

        return pass_on(x)


def steep(factor, size=6) -> keras.Model:
    """A tiny network whose gradients are too large by a factor."""
    image = keras.Input((size, size, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    return keras.Model(image, Steep(factor)(keras.layers.Dense(1)(x)))
