"""A network that learns on a laptop: 107,393 parameters."""

import keras

from pcam_tfdata import schema


def build() -> keras.Model:
    """Returns the network; see `models.build`.

    The first layer strides: at full resolution it took more time than all
    others. There is no pooling over the whole patch at the end, because the
    label is about its centre.
    """
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = _convolve(x, 16, 5, strides=2)
    x = keras.layers.MaxPooling2D(2)(x)
    x = _convolve(x, 32, 3)
    x = _convolve(x, 32, 3)
    x = keras.layers.MaxPooling2D(2)(x)
    x = _convolve(x, 64, 3)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(
        32, activation="relu", kernel_initializer="he_normal"
    )(x)
    logit = keras.layers.Dense(1, dtype="float32", name="logit")(x)
    return keras.Model(image, logit, name="small_cnn")


def _convolve(
    x: keras.KerasTensor, filters: int, size: int, strides: int = 1
) -> keras.KerasTensor:
    return keras.layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
    )(x)
