"""Stain, brightness, contrast and sharpness of patches."""

import numpy as np
import tensorflow as tf

# Optical densities of hematoxylin, eosin and DAB in red, green and blue
# (Ruifrok & Johnston 2001, Table 1), each of length 1.
_DENSITIES = np.array(
    [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]]
)
STAINS = _DENSITIES / np.linalg.norm(_DENSITIES, axis=1, keepdims=True)


def change_color(
    image: tf.Tensor,
    stain_factor: tf.Tensor,
    stain_shift: tf.Tensor,
    contrast: tf.Tensor,
    brightness: tf.Tensor,
) -> tf.Tensor:
    """Returns patches with other amounts of stain, contrast and brightness.

    A level x, 0 to 255, has the optical density -log((x + 1) / 256). Amounts of
    hematoxylin, eosin and DAB are multiplied by `stain_factor`, and
    `stain_shift` is added to them (Tellez et al. 2018). Of the levels that
    follow, the distance from 127.5 is multiplied by `contrast`, and 255 x
    `brightness` is added.

    Args:
        image: uint8 [num_patches, height, width, 3].
        stain_factor: float32 [num_patches, 3].
        stain_shift: float32 [num_patches, 3], in natural units of density.
        contrast: float32 [num_patches], above 0.
        brightness: float32 [num_patches], a share of the range of levels.

    Returns:
        uint8, same shape, rounded and clipped.
    """
    # Between a logarithm and an exponential, it is one matrix and one offset a
    # patch. Sums are spelled out: the last bits of a product of matrices depend
    # on how many patches there are. No term of a sum is used elsewhere: TensorFlow
    # adds three or more beginning with one whose memory it may take, and which
    # one that is would change from run to run.
    to_stains = np.linalg.inv(STAINS).astype(np.float32)
    from_stains = STAINS.astype(np.float32)
    logs = [
        tf.math.log((tf.cast(levels, tf.float32) + 1) / 256)
        for levels in tf.unstack(image, axis=-1)
    ]
    factors, shifts = (
        tf.unstack(values[..., None, None], axis=1)
        for values in (stain_factor, stain_shift)
    )
    scale = (256 * contrast)[:, None, None]
    added = (127.5 * (1 - contrast) - contrast + 255 * brightness)[
        :, None, None
    ]
    changed = []
    for channel in range(3):
        stains = from_stains[:, channel]
        weights = [
            sum(to_stains[i, k] * stains[k] * factors[k] for k in range(3))
            for i in range(3)
        ]
        density = sum(
            x * weight for x, weight in zip(logs, weights, strict=True)
        )
        density -= sum(stains[k] * shifts[k] for k in range(3))
        changed.append(_to_levels(scale * tf.exp(density) + added))
    return tf.stack(changed, axis=-1)


def blur(image: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Returns patches in which pixels are mixed with their neighbors.

    Along both axes a pixel gives `share` to each side, which is a blur of
    variance 2 x `share`, in square pixels. The border is repeated outwards.

    Args:
        image: uint8 [num_patches, height, width, channels].
        share: float32 [num_patches], 0 to 0.25.

    Returns:
        uint8, same shape, rounded.
    """
    x, share = tf.cast(image, tf.float32), share[:, None, None, None]
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    x = (1 - 2 * share) * x[:, 1:-1] + share * (x[:, :-2] + x[:, 2:])
    before, after = x[:, :, :-2], x[:, :, 2:]
    return _to_levels(
        (1 - 2 * share) * x[:, :, 1:-1] + share * (before + after)
    )


def _to_levels(x: tf.Tensor) -> tf.Tensor:
    """Returns levels as uint8, to the nearest one, within the range."""
    return tf.cast(tf.clip_by_value(x + 0.5, 0.0, 255.5), tf.uint8)
