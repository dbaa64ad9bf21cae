"""The endless stream of positions, as patches: what a step sees."""

import dataclasses

import tensorflow as tf

_SHUFFLE_STREAM = 1  # Keeps the order apart from other uses of the seed.
# The public tf.random.experimental.index_shuffle has 4 rounds, and its epochs
# correlate; at 8 they do not.
_SHUFFLE_ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class Order:
    """A permutation for each epoch, from the seed alone.

    Attributes:
        num_patches: Of an epoch.
        batch_size: Patches of a step, over all replicas.
        seed: Of the permutations.
    """

    num_patches: int
    batch_size: int
    seed: int

    def patches_of_step(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the patches of a step: int64 [batch_size]."""
        offsets = tf.range(self.batch_size, dtype=tf.int64)
        positions = step * self.batch_size + offsets
        epochs = positions // self.num_patches
        constants = tf.ones_like(epochs)
        return tf.raw_ops.RandomIndexShuffle(
            index=positions % self.num_patches,
            seed=tf.stack(
                [constants * _SHUFFLE_STREAM, constants * self.seed, epochs], 1
            ),
            max_index=tf.constant(self.num_patches - 1, tf.int64),
            rounds=_SHUFFLE_ROUNDS,
        )
