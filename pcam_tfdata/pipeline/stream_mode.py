"""`stream`: shards read as TFRecords, from front to end.

For disks and networks that are slow at random access, and for more patches than
memory holds. The order is that of shuffled files and a shuffle buffer; a batch
holds patches that lie near each other more often than a permutation's would.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.distribution import private_interfaces
from pcam_tfdata.pipeline import (
    batch_format,
    buffer_pool,
    patch_order,
    patch_source,
)
from pcam_tfdata.records import records_folder, tfrecord

NUM_OPEN_FILES = 4
_NUM_PARSING = 2
BLOCK = 128
_READ_BYTES = 1 << 18
# Where the parts of an Example lie, labelled or not; the label comes last.
_LAYOUT = tfrecord.layout(labeled=True)
_LABEL = _LAYOUT.label_offset - tfrecord.HEADER_BYTES
START_BYTES = _LABEL + 1
_IMAGE_START = _LAYOUT.image_offset - tfrecord.HEADER_BYTES
_IMAGE = slice(_IMAGE_START, _IMAGE_START + schema.IMAGE_BYTES)
_MEGABYTE = 1 << 20


class StreamedPatches(patch_source.Patches):
    """Patches in shards that are read as TFRecords."""

    input = "stream"
    order = "a shuffle buffer"

    def _read_steps(self, steps: patch_order.Steps) -> tf.data.Dataset:
        with _global_seed(steps.seed):
            ds = self._read_shuffled(steps.seed)
        size = steps.portion.size(steps.batch_size)
        ds = ds.batch(size, drop_remainder=True)
        if steps.portion != batch_format.WHOLE:  # The others are read and left.
            ds = ds.shard(steps.portion.count, steps.portion.index)
        ds = ds.skip(steps.first_step)
        ds = ds.take(max(0, steps.num_steps - steps.first_step))
        return self._parse(ds, size, batch_format.TRAIN_PARTS)

    def _read_in_order(
        self, batch_size: int, first_batch: int, portion: batch_format.Portion
    ) -> tf.data.Dataset:
        shard, record = self.selection.locate(first_batch * batch_size)
        # Shards before are not read, and records before only in one shard.
        ds = list_shards(self.selection.shards).skip(shard)
        ds = ds.flat_map(read_blocks).unbatch().skip(record)
        ds = ds.batch(batch_size)
        if portion != batch_format.WHOLE:
            own = portion.indices(batch_size)
            part = slice(own.start, own.stop)
            ds = ds.map(lambda row, example: (row[part], example[part]))
        size = portion.size(batch_size)
        return self._parse(ds, size, batch_format.EVAL_PARTS)

    def _read_shuffled(self, seed: int) -> tf.data.Dataset:
        """Returns (row, Example) for ever, in another order each epoch."""
        options = self.source.options
        num_files = len(self.selection.shards)
        ds = list_shards(self.selection.shards)
        if options.cache == "none":
            ds = ds.shuffle(num_files, seed=seed)
        num_open = min(NUM_OPEN_FILES, num_files)
        num_calls = min(options.input_threads or num_open, num_open)
        ds = ds.interleave(
            read_blocks, cycle_length=num_open, num_parallel_calls=num_calls
        )
        ds = ds.unbatch()
        if options.cache != "none":
            # Before all that differs between epochs.
            ds = ds.cache("" if options.cache == "memory" else options.cache)
        # After a damaged record tf.data goes on with the others, and would
        # keep them as if they were all.
        ds = ds.apply(tf.data.experimental.assert_cardinality(self.num_patches))
        ds = ds.shuffle(count_shuffled(self), seed=seed)
        return ds.repeat()

    def _parse(
        self, ds: tf.data.Dataset, batch_size: int, parts: Sequence[str]
    ) -> tf.data.Dataset:
        """Returns batches, padded, of batches of (row, serialised Example)."""
        num_calls = self.source.options.input_threads or _NUM_PARSING
        return ds.map(
            lambda row, example: to_batch(
                *decode_starts(row, example), batch_size, parts
            ),
            num_parallel_calls=num_calls,
        )


def to_batch(
    row: tf.Tensor, start: tf.Tensor, batch_size: int, parts: Sequence[str]
) -> batch_format.Batch:
    """Returns rows and starts of Examples as a batch, padded.

    Args:
        row: int64 [n].
        start: uint8 [n, START_BYTES], see `decode_starts`.
        batch_size: Patches of a batch, n at least.
        parts: `batch_format.TRAIN_PARTS` or `EVAL_PARTS`.
    """
    pool = buffer_pool.pool_of_batches(batch_size)

    @tf.autograph.experimental.do_not_convert
    def fill(row: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
        num_patches = len(row)
        image = pool.take()
        pixels = image.reshape(batch_size, schema.IMAGE_BYTES)
        pixels[:num_patches] = start[:, _IMAGE]
        pixels[num_patches:] = 0
        padded_row, label = np.zeros((2, batch_size), np.int64)
        padded_row[:num_patches] = row
        # The first byte of -1 is 255.
        label[:num_patches] = start[:, _LABEL].view(np.int8)
        mask = np.arange(batch_size) < num_patches
        return (image, label, padded_row, mask)[: len(parts)]

    return batch_format.from_numpy(fill, [row, start], batch_size, parts)


def refuse_unreadable(records: records_folder.RecordsFolder) -> None:
    """Refuses a store that fsspec opens, and TensorFlow, which reads, not.

    Raises:
        ValueError: it is in such a store.
    """
    scheme, separator, _ = records.path.partition("://")
    if separator and scheme not in tf.io.gfile.get_registered_schemes():
        raise ValueError(
            f"{records.path}: found records in a store, expected a folder on a"
            f" disk: TensorFlow reads no {scheme}:// here. Copy the records to"
            " a disk."
        )


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Gives TensorFlow a global seed, which decides on shuffling too.

    What else the program draws with its own stays as it was.
    """
    context = private_interfaces.eager_context()
    before = context._seed
    context._seed = seed
    try:
        yield
    finally:
        context._seed = before


def count_shuffled(patches: patch_source.Patches) -> int:
    """Returns the number of records of a shuffle buffer."""
    shards = patches.selection.shards
    record_bytes = max(shard.layout.record_bytes for shard in shards)
    wanted = (
        patches.source.options.shuffle_megabytes * _MEGABYTE // record_bytes
    )
    return max(1, min(wanted, patches.num_patches))


def list_shards(shards: Sequence[records_folder.ShardFile]) -> tf.data.Dataset:
    """Returns what `read_blocks` takes of each shard."""
    paths = [shard.path for shard in shards]
    numbers = [(shard.first_row, shard.num_records) for shard in shards]
    return tf.data.Dataset.from_tensor_slices(
        (paths, *np.array(numbers, np.int64).T)
    )


def read_blocks(
    path: tf.Tensor, first_row: tf.Tensor, num_records: tf.Tensor
) -> tf.data.Dataset:
    """Returns rows and Examples of a shard in blocks, as many as it should have.

    Stages that work in parallel pay for each element that they hand on.
    """
    ds = tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES)
    ds = ds.take(num_records)
    return ds.enumerate(first_row).batch(BLOCK)


def decode_starts(
    row: tf.Tensor, example: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns rows, and Examples up to the label: uint8 [n, START_BYTES]."""
    return row, tf.io.decode_raw(example, tf.uint8, fixed_length=START_BYTES)
