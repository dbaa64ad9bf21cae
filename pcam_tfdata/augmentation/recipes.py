"""Named recipes of augmentation: what is drawn for a patch of a step."""

from typing import NamedTuple

import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.augmentation import color, square


class _Strength(NamedTuple):
    """How far a recipe changes patches, evenly up to these bounds."""

    stain_factor: float  # 1 +- this multiplies the amount of each stain.
    stain_shift: float  # +- this is added to it, in units of optical density.
    contrast: float  # 1 +- this multiplies distances from the middle level.
    brightness: float  # +- this share of the range is added to levels.
    blur: float = 0.0  # A pixel gives up to this to each neighbor on an axis.
    # Pixels up, down, left and right: few, for the label is about the centre.
    shift: int = 0
    cutout: int = 0  # Pixels of a square's side, outside of the centre.


# Each also moves the patch by one of the symmetries of the square, as `d4`.
_STRENGTHS = {
    "stain": _Strength(0.15, 0.05, 0.1, 0.05),
    "strong": _Strength(0.3, 0.1, 0.2, 0.1, blur=0.2, shift=2, cutout=24),
}


def augment(
    image: tf.Tensor,
    *,
    name: str,
    seed: int,
    step: tf.Tensor,
    first: tf.Tensor | int,
    batch_size: int,
) -> tf.Tensor:
    """Returns patches after a recipe of augmentation.

    What is drawn follows from the seed, the step, and the index in the global
    batch, so that it does not depend on how many replicas share the batch.

    Args:
        image: uint8 [num_patches, 96, 96, 3]; the patches at indices first ...
            of the batch.
        name: One of `choices.AUGMENTATIONS`.
        seed: At least 0, less than 2^32.
        step: int64 scalar.
        first: Scalar integer.
        batch_size: Patches of the global batch.

    Returns:
        Same shape and dtype.
    """
    if name == "none":
        return image
    num_patches = image.shape[0] or tf.shape(image)[0]
    # For the whole batch: a few thousand numbers cost less than finding out
    # which of them are ours.
    move = tf.random.stateless_uniform(
        [batch_size], [seed, step], maxval=square.NUM_MOVES, dtype=tf.int32
    )
    image = square.apply_d4(image, tf.slice(move, [first], [num_patches]))
    if name == "d4":
        return image
    # Seeds of moves are below 2^32.
    drawn = tf.random.stateless_uniform(
        [batch_size, 16], [seed + (1 << 32), step]
    )
    drawn = tf.slice(drawn, [first, 0], [num_patches, 16])
    return _change(image, drawn, _STRENGTHS[name])


def _change(
    image: tf.Tensor, drawn: tf.Tensor, strength: _Strength
) -> tf.Tensor:
    """Returns patches changed as numbers in [0, 1) of each, [n, 16], say."""
    sign = 2 * drawn - 1
    if strength.shift:
        distance = _whole(drawn[:, 8:10], 2 * strength.shift + 1)
        distance -= strength.shift
        image = square.shift(image, distance[:, 0], distance[:, 1])
    image = color.change_color(
        image,
        1 + strength.stain_factor * sign[:, :3],
        strength.stain_shift * sign[:, 3:6],
        1 + strength.contrast * sign[:, 6],
        strength.brightness * sign[:, 7],
    )
    if strength.blur:
        image = color.blur(image, strength.blur * drawn[:, 10])
    if strength.cutout:
        image = _cut_out_beside(image, drawn[:, 11:15], strength.cutout)
    return image


def _cut_out_beside(
    image: tf.Tensor, drawn: tf.Tensor, max_size: int
) -> tf.Tensor:
    """Cuts a square out of each patch, above, below or beside the centre.

    Args:
        image: uint8 [num_patches, 96, 96, 3].
        drawn: float32 [num_patches, 4], in [0, 1).
        max_size: Of the square, in pixels; at most 32, so that it fits.
    """
    size = _whole(drawn[:, 0], max_size + 1)
    end = schema.PATCH_SIZE - size
    along = _whole(drawn[:, 1], end + 1)
    across = _whole(drawn[:, 2], schema.CENTER_START - size + 1)
    side = _whole(drawn[:, 3], 4)
    across = tf.where(side % 2 == 0, across, end - across)
    is_beside = side < 2
    top = tf.where(is_beside, along, across)
    left = tf.where(is_beside, across, along)
    return square.cut_out(image, top, left, size)


def _whole(drawn: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """Returns numbers in [0, 1) as int32 in 0 ... count - 1, evenly."""
    count = tf.convert_to_tensor(count)
    product = tf.cast(drawn * tf.cast(count, drawn.dtype), tf.int32)
    return tf.minimum(product, count - 1)  # It may have been rounded up.
