"""The endless stream of positions, as patches: what a step sees.

With global batch size B and N patches, step s holds the positions s*B .. s*B +
B - 1; position p is the patch `permutation of epoch p // N` at `p mod N`. Which
patches a step sees follows from (seed, step) alone, so resuming is a counter.
Batches straddle epochs: none is short and no patch is dropped.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from pcam_tfdata.pipeline import batch_format

_SHUFFLE_STREAM = 1  # Keeps the order apart from other uses of the seed.
# The public tf.random.experimental.index_shuffle has 4 rounds, and its epochs
# correlate; at 8 they do not.
_SHUFFLE_ROUNDS = 8


@dataclasses.dataclass(frozen=True)
class Steps:
    """Training steps; see `patch_source.Patches.train_batches`."""

    batch_size: int
    seed: int
    first_step: int
    num_steps: int
    portion: batch_format.Portion = batch_format.WHOLE


def patches_of_step(
    step: tf.Tensor, steps: Steps, num_patches: int
) -> tf.Tensor:
    """Returns the patches of a step's portion: int64 [its size].

    Args:
        step: int64 [].
        steps: Have the batch size, the seed and the portion.
        num_patches: Patches of an epoch.
    """
    indices = np.array(steps.portion.indices(steps.batch_size))
    # Few operations, and constants made by NumPy: each one delays the first
    # batch by a millisecond, and every batch by some microseconds.
    positions = step * steps.batch_size + indices
    epochs = positions // num_patches
    seed = np.tile([_SHUFFLE_STREAM, steps.seed, 0], (len(indices), 1))
    return tf.raw_ops.RandomIndexShuffle(
        index=positions - epochs * num_patches,
        seed=seed + epochs[:, tf.newaxis] * np.array([0, 0, 1]),
        max_index=np.int64(num_patches - 1),
        rounds=_SHUFFLE_ROUNDS,
    )
