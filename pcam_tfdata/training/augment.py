"""Moves of a batch of patches that leave their labels alone, on the device."""

import tensorflow as tf

NUM_MOVES = 8  # Symmetries of the square: four turns, each flipped or not.


def random_d4(
    image: tf.Tensor,
    *,
    seed: int,
    step: tf.Tensor,
    first: tf.Tensor | int,
    batch_size: int,
) -> tf.Tensor:
    """Returns patches, each moved by one of the 8 symmetries of the square.

    Which one follows from the seed, the step, and the index in the global batch,
    so that it does not depend on how many replicas share the batch.

    Args:
        image: [num_patches, size, size, channels] of any dtype; the patches at
            indices first ... of the batch.
        seed: At least 0, less than 2^32.
        step: int64 scalar.
        first: Scalar integer.
        batch_size: Patches of the global batch.

    Returns:
        Same shape and dtype.
    """
    # For the whole batch: a few thousand numbers cost less than finding out
    # which of them are ours.
    move = tf.random.stateless_uniform(
        [batch_size], [seed, step], maxval=NUM_MOVES, dtype=tf.int32
    )
    num_patches = image.shape[0] or tf.shape(image)[0]
    return apply_d4(image, tf.slice(move, [first], [num_patches]))


def apply_d4(image: tf.Tensor, move: tf.Tensor) -> tf.Tensor:
    """Returns each patch after its move.

    Args:
        image: [num_patches, size, size, channels] of any dtype.
        move: int32 [num_patches], 0 to 7. The bits, applied in this order: 1
            transposes, 2 flips up and down, 4 flips left and right. 0 leaves
            the patch as it is.

    Returns:
        Same shape and dtype.
    """
    for bit, moved in (
        (1, lambda x: tf.transpose(x, [0, 2, 1, 3])),
        (2, lambda x: tf.reverse(x, [1])),
        (4, lambda x: tf.reverse(x, [2])),
    ):
        chosen = tf.bitwise.bitwise_and(move, bit) > 0
        image = tf.where(chosen[:, None, None, None], moved(image), image)
    return image
