"""Moves of pixels: the symmetries of the square, shifts, and a square cut out."""

import tensorflow as tf

NUM_MOVES = 8  # Four turns, each flipped or not.


def apply_d4(image: tf.Tensor, move: tf.Tensor) -> tf.Tensor:
    """Returns each patch after one of the eight symmetries of the square.

    Args:
        image: [num_patches, size, size, channels] of any dtype.
        move: int32 [num_patches], 0 to 7. The bits, applied in this order: 1
            transposes, 2 flips up and down, 4 flips left and right. 0 leaves
            the patch as it is.

    Returns:
        Same shape and dtype.
    """
    shape = tf.shape(image)
    size, channels = image.shape[2:]
    places = tf.reshape(tf.range(size**2), [1, size, size, 1])
    source = tf.reshape(stack_d4(places), [NUM_MOVES, -1])
    # Pixels are gathered, since tf.where broadcasts at a fifth of the speed.
    pixels = tf.reshape(image, [-1, size**2, channels])
    moved = _gather(pixels, tf.gather(source, move))
    return tf.ensure_shape(tf.reshape(moved, shape), image.shape)


def stack_d4(image: tf.Tensor) -> tf.Tensor:
    """Returns patches after each of the eight symmetries of the square.

    Args:
        image: [num_patches, size, size, channels] of any dtype.

    Returns:
        [8 x num_patches, size, size, channels]: all after move 0 of `apply_d4`,
        then all after move 1, and so on.
    """
    image = tf.concat([image, tf.transpose(image, [0, 2, 1, 3])], axis=0)
    for axis in (1, 2):
        image = tf.concat([image, tf.reverse(image, [axis])], axis=0)
    return image


def shift(image: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Returns patches moved down and to the right, mirrored into the gap.

    Args:
        image: [num_patches, size, size, channels] of any dtype.
        rows: int32 [num_patches], between -size and size.
        columns: The same.

    Returns:
        Same shape and dtype.
    """
    size = image.shape[1]
    for distance in (rows, columns):
        index = tf.abs(tf.range(size) - distance[:, None])
        index = tf.minimum(index, 2 * (size - 1) - index)
        image = _gather(image, index)
        image = tf.transpose(image, [0, 2, 1, 3])  # The other axis comes next.
    return image


def _gather(image: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns what lies at some places of the first axis of each patch.

    TensorFlow has no gather of uint8 for GPUs; one of int32 takes longer on CPUs.
    """
    dtype = image.dtype
    if dtype == tf.uint8 and tf.config.list_logical_devices("GPU"):
        image = tf.cast(image, tf.int32)
    return tf.cast(tf.gather(image, index, axis=1, batch_dims=1), dtype)


def cut_out(
    image: tf.Tensor, top: tf.Tensor, left: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """Returns patches with a square of each in the mean color of that patch.

    Args:
        image: uint8 [num_patches, height, width, channels].
        top: int32 [num_patches], first row of the square.
        left: int32 [num_patches], first column of the square.
        size: int32 [num_patches], rows and columns of the square; 0 for none
            (DeVries & Taylor 2017).

    Returns:
        uint8, same shape.
    """
    _, height, width, _ = image.shape

    def covers(count: int, first: tf.Tensor) -> tf.Tensor:
        distance = tf.range(count)[None] - first[:, None]
        return (distance >= 0) & (distance < size[:, None])

    covered = covers(height, top)[:, :, None] & covers(width, left)[:, None]
    # In integers, whose sum is the same in any order.
    levels = tf.cast(image, tf.int32)
    total = tf.reduce_sum(levels, axis=[1, 2], keepdims=True)
    color = tf.cast(total // (height * width), tf.uint8)
    return tf.where(covered[..., None], color, image)
