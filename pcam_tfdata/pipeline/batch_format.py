"""A batch, and what all input modes do to it."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.pipeline import buffer_pool, process_exit

Batch = dict[str, tf.Tensor]
_PARTS = {
    "image": (tf.uint8, schema.IMAGE_SHAPE),
    "label": (tf.int64, ()),
    "row": (tf.int64, ()),
    "mask": (tf.bool, ()),
}
EVAL_PARTS = tuple(_PARTS)
TRAIN_PARTS = EVAL_PARTS[:-1]


@dataclasses.dataclass(frozen=True)
class Portion:
    """What one of several processes takes of each batch: contiguous patches.

    Attributes:
        index: Which process.
        count: How many processes there are. They share a batch evenly.
    """

    index: int = 0
    count: int = 1

    def size(self, batch_size: int) -> int:
        """Returns how many patches of a batch it is."""
        return batch_size // self.count

    def indices(self, batch_size: int) -> range:
        """Returns which patches of a batch it is."""
        size = self.size(batch_size)
        return range(self.index * size, (self.index + 1) * size)

    def indices_of_all(self, num_patches: int, batch_size: int) -> np.ndarray:
        """Returns which of all patches are in it, where each is read once."""
        patch = np.arange(num_patches)
        of_process = patch % batch_size // self.size(batch_size)
        return np.flatnonzero(of_process == self.index)


WHOLE = Portion()


def from_numpy(
    function: Callable[..., tuple[np.ndarray, ...]],
    inputs: Sequence[tf.Tensor],
    batch_size: int,
    parts: Sequence[str],
) -> Batch:
    """Returns the batch that a NumPy function gives, of static shape.

    Args:
        function: Gives an array for each part.
        inputs: Arguments of the function.
        batch_size: Length of the arrays.
        parts: `TRAIN_PARTS` or `EVAL_PARTS`.
    """
    arrays = tf.numpy_function(
        process_exit.counted(function),
        inputs,
        [_PARTS[name][0] for name in parts],
    )
    batch = dict(zip(parts, arrays, strict=True))
    for name, part in batch.items():
        # Costs nothing while it runs; tf.ensure_shape would.
        part.set_shape([batch_size, *_PARTS[name][1]])
    return batch


def read_in_order(
    read: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    patches: range,
    *,
    batch_size: int,
    num_calls: int,
    portion: Portion = WHOLE,
) -> tf.data.Dataset:
    """Returns patches in order, in batches that are padded and masked.

    Args:
        read: Writes the pixels of patches, int64 [n], to uint8 [n, 96, 96, 3];
            returns their labels and rows.
        patches: Which ones; a batch begins with the first.
        batch_size: Patches of a batch, over all processes.
        num_calls: How many batches are read at a time.
        portion: What this process takes of each batch.
    """
    indices = portion.indices(batch_size)
    size = len(indices)
    pool = buffer_pool.pool_of_batches(size)

    def gather(start: int) -> tuple[np.ndarray, ...]:
        wanted = np.arange(
            start + indices.start, min(start + indices.stop, patches.stop)
        )
        image = pool.take()
        label, row = np.zeros((2, size), np.int64)
        num_patches = len(wanted)
        image[num_patches:] = 0
        label[:num_patches], row[:num_patches] = read(
            wanted, image[:num_patches]
        )
        return image, label, row, np.arange(size) < num_patches

    @tf.autograph.experimental.do_not_convert
    def batch_from(start: tf.Tensor) -> Batch:
        return from_numpy(gather, [start], size, EVAL_PARTS)

    ds = tf.data.Dataset.range(patches.start, patches.stop, batch_size)
    return ds.map(batch_from, num_parallel_calls=num_calls)


def whole(batch: Batch) -> Batch:
    """Returns the batch: nothing has to be added where it is used."""
    return batch


def fit_batch_size(
    batch_size: int, num_patches: int, num_replicas: int = 1
) -> int:
    """Returns a size for evaluation that does not pad a few patches to many.

    It is rounded up to what replicas can share evenly.
    """
    fitting = max(1, min(batch_size, num_patches))
    return -(-fitting // num_replicas) * num_replicas


def limit_threads(ds: tf.data.Dataset, num_threads: int) -> tf.data.Dataset:
    """Returns a dataset that computes in as many threads of its own.

    Args:
        ds: With all its stages.
        num_threads: 0 leaves it in the threads that all of TensorFlow shares.
    """
    options = tf.data.Options()
    # Nothing here is tuned while it runs: the stages are few and their
    # parallelism was measured. It costs 0.1 ms a batch, and now and then lets
    # the end of a dataset wait for the thread that tunes, up to 5 seconds.
    # Rewriting the graph delays the first batch.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    if num_threads:
        options.threading.private_threadpool_size = num_threads
        options.threading.max_intra_op_parallelism = 1
    return ds.with_options(options)
