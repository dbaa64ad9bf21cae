"""The endless stream of positions, as patches: what a step sees."""

import dataclasses

import numpy as np
import tensorflow as tf

from pcam_tfdata.pipeline import batch_format

_SHUFFLE_STREAM = 1  # Keeps the order apart from other uses of the seed.
# The public tf.random.experimental.index_shuffle has 4 rounds, and its epochs
# correlate; at 8 they do not.
_SHUFFLE_ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class Order:
    """A permutation for each epoch, from the seed alone.

    Attributes:
        num_patches: Patches of an epoch.
        batch_size: Patches of a step, over all replicas.
        seed: Decides the permutations.
    """

    num_patches: int
    batch_size: int
    seed: int

    def patches_of_step(
        self,
        step: tf.Tensor,
        portion: batch_format.Portion = batch_format.WHOLE,
    ) -> tf.Tensor:
        """Returns the patches of a step, or a portion: int64 [its size]."""
        indices = np.array(portion.indices(self.batch_size))
        # Few operations, and constants made by NumPy: each one delays the first
        # batch by a millisecond, and every batch by some microseconds.
        positions = step * self.batch_size + indices
        epochs = positions // self.num_patches
        seed = np.tile([_SHUFFLE_STREAM, self.seed, 0], (len(indices), 1))
        return tf.raw_ops.RandomIndexShuffle(
            index=positions - epochs * self.num_patches,
            seed=seed + epochs[:, tf.newaxis] * np.array([0, 0, 1]),
            max_index=np.int64(self.num_patches - 1),
            rounds=_SHUFFLE_ROUNDS,
        )
