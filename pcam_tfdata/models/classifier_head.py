"""The end of a network: a map of features to a logit, and to a tumor fraction."""

import keras

LOGIT = "logit"
FRACTION = "fraction"
LAYERS = (LOGIT, FRACTION)  # In the order of outputs.


def add_outputs(
    features: keras.KerasTensor, head: str, *, dropout: float
) -> keras.KerasTensor | list[keras.KerasTensor]:
    """Returns the logit of a map of features, and a tumor fraction if wanted.

    Features are pooled by their mean and by their maximum over the map: the
    label is 1 if a single spot of the centre is tumor, which a mean dilutes.
    All that is computed from pooled features is in the type of the weights,
    float32 under mixed precision.

    Args:
        features: [B, height, width, channels]; its centre is the patch's, and
            for the head `noisy_or` its places have 16 pixels a side.
        head: One of `choices.HEADS`.
        dropout: Share of pooled features that a step leaves out.

    Returns:
        The logit of label 1, [B, 1]; of other heads than `label` a list of it
        and of the share of the centre that is tumor, [B, 1] in [0, 1].
    """
    if head == "noisy_or":
        return _add_noisy_or(features, dropout)
    x = keras.layers.Concatenate()(
        [
            keras.layers.GlobalAveragePooling2D()(features),
            keras.layers.GlobalMaxPooling2D()(features),
        ]
    )
    x = keras.layers.Dropout(dropout)(x)
    dtype = keras.config.dtype_policy().variable_dtype
    logit = keras.layers.Dense(1, dtype=dtype, name=LOGIT)(x)
    if head == "label":
        return logit
    fraction = keras.layers.Dense(1, "sigmoid", dtype=dtype, name=FRACTION)(x)
    return [logit, fraction]


def _add_noisy_or(
    features: keras.KerasTensor, dropout: float
) -> list[keras.KerasTensor]:
    """Returns both outputs, from a probability of tumor at each central place.

    The label is 1 unless no place has tumor (Pearl 1988; as pooling of a map,
    Kraus et al. 2016). No mask is needed: the mean probability of the 2 x 2
    places, each 16 pixels wide, estimates the share.
    """
    x = keras.layers.Cropping2D(features.shape[1] // 2 - 1)(features)
    x = keras.layers.Dropout(dropout)(x)
    dtype = keras.config.dtype_policy().variable_dtype
    x = keras.layers.Conv2D(
        1, 1, dtype=dtype, name=LOGIT,
        # As many labels 1 as 0 at first.
        bias_initializer=keras.initializers.Constant(-1.66),
    )(x)  # fmt: skip
    x = keras.layers.Flatten(dtype=dtype)(x)
    # -log of the probability that no place has tumor; exp(-69) is far from 0.
    clear = keras.ops.sum(keras.ops.softplus(x), axis=-1, keepdims=True)
    clear = keras.ops.maximum(clear, 1e-30)
    logit = clear + keras.ops.log(-keras.ops.expm1(-clear))
    fraction = keras.ops.mean(keras.ops.sigmoid(x), axis=-1, keepdims=True)
    return [logit, keras.layers.Identity(dtype=dtype, name=FRACTION)(fraction)]
