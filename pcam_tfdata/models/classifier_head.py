"""The end of a network: a map of features to a logit."""

import keras

LOGIT = "logit"  # Name of the last layer, which training may train first.


def add_logit(
    features: keras.KerasTensor, *, dropout: float
) -> keras.KerasTensor:
    """Returns the logit of a map of features, float [B, 1].

    Features are pooled by their mean and by their maximum over the map: the
    label is 1 if a single spot of the centre is tumor, which a mean dilutes.
    The layer of the logit is called `logit`; it computes in the type of the
    weights, float32 under mixed precision.

    Args:
        features: [B, height, width, channels].
        dropout: Share of pooled features that a step leaves out.
    """
    x = keras.layers.Concatenate()(
        [
            keras.layers.GlobalAveragePooling2D()(features),
            keras.layers.GlobalMaxPooling2D()(features),
        ]
    )
    x = keras.layers.Dropout(dropout)(x)
    dtype = keras.config.dtype_policy().variable_dtype
    return keras.layers.Dense(1, dtype=dtype, name=LOGIT)(x)
