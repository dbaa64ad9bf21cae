"""The network of the course notebook: 3,411,521 parameters."""

import keras

from pcam_tfdata import schema

_FILTERS = (32, 64, 128)
_UNITS = (256, 128, 64)
_DROPOUT = 0.2


def build() -> keras.Model:
    """Returns the network; see `networks.build`."""
    image = keras.Input(schema.IMAGE_SHAPE, dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    for filters in _FILTERS:
        x = keras.layers.Conv2D(filters, 3, activation="relu")(x)
        x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Dropout(_DROPOUT)(x)
    x = keras.layers.Flatten()(x)
    for units in _UNITS:
        x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dropout(_DROPOUT)(x)
    dtype = keras.config.dtype_policy().variable_dtype
    logit = keras.layers.Dense(1, dtype=dtype, name="logit")(x)
    return keras.Model(image, logit, name="seed_cnn")
