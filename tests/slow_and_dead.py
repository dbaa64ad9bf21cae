"""Networks for `networks.build`: one that dies of its rate, and such as learn slowly."""

import keras

from pcam_tfdata.models import networks

seed_cnn = networks.build


def mortal(*_: object) -> keras.Model:
    """A network that a step of Adam at learning rate 10 kills for certain.

    All its units are on for each patch, since no weight and no pixel is below 0,
    and the logit is far above 0. So the gradient of each weight is above 0, and
    Adam's first step takes about 10 off all of them: no unit is on again.
    """
    image = keras.Input((96, 96, 3), dtype="uint8")
    x = keras.layers.Dense(
        16,
        activation="relu",
        kernel_initializer=keras.initializers.RandomUniform(0, 0.01),
    )(_average(image))
    logit = keras.layers.Dense(
        1,
        kernel_initializer=keras.initializers.Constant(0.1),
        bias_initializer=keras.initializers.Constant(1),
        name="logit",
    )(x)
    return keras.Model(image, logit)


def convex(*_: object) -> keras.Model:
    """A logistic regression from 0, which learns at any small rate."""
    image = keras.Input((96, 96, 3), dtype="uint8")
    logit = keras.layers.Dense(1, kernel_initializer="zeros", name="logit")
    return keras.Model(image, logit(_average(image)))


def _average(image: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the mean colors of a patch's 144 squares, in [0, 1], in a row."""
    x = keras.layers.Rescaling(1 / 255)(image)
    return keras.layers.Flatten()(keras.layers.AveragePooling2D(8)(x))
