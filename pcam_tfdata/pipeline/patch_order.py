"""The endless stream of positions, as patches: what a step sees.

With global batch size B and N patches, step s holds the positions s*B .. s*B +
B - 1; position p is the patch `permutation of epoch p // N` at `p mod N`. Which
patches a step sees follows from (seed, step) alone, so resuming is a counter.
Batches straddle epochs: none is short and no patch is dropped.
"""

import numpy as np
import tensorflow as tf

from pcam_tfdata.pipeline import batch_format

_SHUFFLE_STREAM = 1  # Keeps the order apart from other uses of the seed.
# The public tf.random.experimental.index_shuffle has 4 rounds, and its epochs
# correlate; at 8 they do not.
_SHUFFLE_ROUNDS = 8


def patches_of_step(
    step: tf.Tensor,
    *,
    num_patches: int,
    batch_size: int,
    seed: int,
    portion: batch_format.Portion = batch_format.WHOLE,
) -> tf.Tensor:
    """Returns the patches of a step, or of a portion of it: int64 [its size].

    Args:
        step: int64 [].
        num_patches: Patches of an epoch.
        batch_size: Patches of a step, over all replicas.
        seed: Decides the permutations.
        portion: What is wanted of the step.
    """
    indices = np.array(portion.indices(batch_size))
    # Few operations, and constants made by NumPy: each one delays the first
    # batch by a millisecond, and every batch by some microseconds.
    positions = step * batch_size + indices
    epochs = positions // num_patches
    seeds = np.tile([_SHUFFLE_STREAM, seed, 0], (len(indices), 1))
    return tf.raw_ops.RandomIndexShuffle(
        index=positions - epochs * num_patches,
        seed=seeds + epochs[:, tf.newaxis] * np.array([0, 0, 1]),
        max_index=np.int64(num_patches - 1),
        rounds=_SHUFFLE_ROUNDS,
    )
