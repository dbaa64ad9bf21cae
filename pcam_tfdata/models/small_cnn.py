"""A network that learns on a laptop: 107,489 parameters."""

import functools

import keras

from pcam_tfdata import schema


def build() -> keras.Model:
    """Returns the network; see `networks.build`.

    The first layer strides: at full resolution it took more time than all
    others. There is no pooling over the whole patch at the end, because the
    label is about its centre.

    The hidden units are normalized over the batch (Ioffe & Szegedy 2015), so
    each of them is on for some patches and off for others. All of their 2,304
    inputs are positive; hence the first steps of Adam, which move every weight
    as far as any, moved whole units below 0 on all patches, where no gradient
    reached them any more. The momentum is that of runs with few steps.
    """
    convolve = functools.partial(
        keras.layers.Conv2D,
        padding="same",
        activation="relu",
        kernel_initializer="he_normal",
    )
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    x = convolve(16, 5, strides=2)(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = convolve(32, 3)(x)
    x = convolve(32, 3)(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = convolve(64, 3)(x)
    x = keras.layers.MaxPooling2D(2)(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.3)(x)
    x = keras.layers.Dense(32, use_bias=False, kernel_initializer="he_normal")(
        x
    )
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.Activation("relu")(x)
    dtype = keras.config.dtype_policy().variable_dtype
    logit = keras.layers.Dense(1, dtype=dtype, name="logit")(x)
    return keras.Model(image, logit, name="small_cnn")
