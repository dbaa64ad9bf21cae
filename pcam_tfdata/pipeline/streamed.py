"""`stream`: shards read as TFRecords, from front to end.

For disks and networks that are slow at random access, and for more patches than
memory holds. The order is that of shuffled files and a shuffle buffer; a batch
holds patches that lie near each other more often than a permutation's would.
"""

import contextlib
import functools
import glob
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

# TensorFlow has no public way to read the global seed.
from tensorflow.python.eager import context as eager_context

from pcam_tfdata import schema
from pcam_tfdata.pipeline import batches, buffers
from pcam_tfdata.records import records_folder, tfrecord

NUM_OPEN_FILES = 4
_NUM_PARSING = 2
BLOCK = 128
_READ_BYTES = 1 << 18
# Where the parts of an Example lie, labelled or not.
_LAYOUT = tfrecord.layout(labeled=True)
_LABEL = _LAYOUT.label_offset - tfrecord.HEADER_BYTES
_IMAGE_START = _LAYOUT.image_offset - tfrecord.HEADER_BYTES
_IMAGE = slice(_IMAGE_START, _IMAGE_START + schema.IMAGE_BYTES)
_MEGABYTE = 1 << 20


class StreamedPatches:
    """Patches in shards that are read as TFRecords.

    Args:
        selected: Which.
        num_threads: Of the pipeline; 0 for TensorFlow's own number.
        shuffle_megabytes: Records held in the shuffle buffer.
        cache: `none`; `memory`, or the path of a file to be made, where records
            are kept from the first epoch on.

    Attributes:
        input: Its name among `choices.INPUTS`.
        selection: As given.
        order: What training follows; two ways of one order give one run.
        source: Set by `patch_source.open_patches`: what was opened.
        plan: Set by `patch_source.open_patches`: which way in, and why.
    """

    input = "stream"
    order = "a shuffle buffer"
    source = None
    plan = ""

    def __init__(
        self,
        selected: records_folder.Selection,
        *,
        num_threads: int = 0,
        shuffle_megabytes: int = 128,
        cache: str = "none",
    ) -> None:
        buffers.keep_freed_memory()
        self.selection = selected
        self._num_threads = num_threads
        self._shuffle_buffer = shuffle_buffer(selected, shuffle_megabytes)
        self._cache = cache

    @property
    def num_patches(self) -> int:
        """How many there are."""
        return self.selection.num_patches

    def train_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        first_step: int,
        num_steps: int,
        portion: batches.Portion = batches.WHOLE,
    ) -> tf.data.Dataset:
        """See `pipeline.train_batches`."""
        size = portion.size(batch_size)
        with _global_seed(seed):
            ds = self._read_shuffled(seed)
        ds = ds.batch(size, drop_remainder=True)
        if portion != batches.WHOLE:  # The others are read and left.
            ds = ds.shard(portion.count, portion.index)
        ds = ds.skip(first_step).take(max(0, num_steps - first_step))
        ds = self._parse(ds, size, batches.TRAIN_PARTS)
        ds = ds.prefetch(1)  # Last: overlaps with the step.
        return batches.limit_threads(ds, self._num_threads)

    def eval_batches(
        self,
        *,
        batch_size: int,
        first_batch: int = 0,
        portion: batches.Portion = batches.WHOLE,
    ) -> tf.data.Dataset:
        """See `pipeline.eval_batches`."""
        shard, record = self.selection.locate(first_batch * batch_size)
        # Shards before are not read, and records before only in one shard.
        ds = self._shards().skip(shard).flat_map(read_blocks).unbatch()
        ds = ds.skip(record)
        ds = ds.batch(batch_size)
        if portion != batches.WHOLE:
            ds = ds.map(functools.partial(_cut, portion.places(batch_size)))
        size = portion.size(batch_size)
        ds = self._parse(ds, size, batches.EVAL_PARTS)
        ds = ds.prefetch(1)
        return batches.limit_threads(ds, self._num_threads)

    fill = staticmethod(batches.whole)

    def _shards(self) -> tf.data.Dataset:
        shards = self.selection.shards
        return tf.data.Dataset.from_tensor_slices(
            (
                [shard.path for shard in shards],
                tf.constant([shard.first_row for shard in shards], tf.int64),
            )
        )

    def _read_shuffled(self, seed: int) -> tf.data.Dataset:
        """Returns (row, Example) for ever, in another order each epoch."""
        num_files = len(self.selection.shards)
        ds = self._shards()
        if self._cache == "none":
            ds = ds.shuffle(num_files, seed=seed)
        cycle_length = min(NUM_OPEN_FILES, num_files)
        ds = ds.interleave(
            read_blocks,
            cycle_length=cycle_length,
            num_parallel_calls=min(
                self._num_threads or cycle_length, cycle_length
            ),
        )
        ds = ds.unbatch()
        if self._cache != "none":
            # Before all that differs between epochs.
            ds = ds.cache(self._open_cache())
        # After a damaged record tf.data goes on with the others, and would
        # keep them as if they were all.
        ds = ds.apply(tf.data.experimental.assert_cardinality(self.num_patches))
        ds = ds.shuffle(self._shuffle_buffer, seed=seed)
        return ds.repeat()

    def _open_cache(self) -> str:
        """Returns what tf.data calls the place of the cache.

        Raises:
            FileExistsError: something is there, maybe of other patches.
        """
        if self._cache == "memory":
            return ""
        found = glob.glob(f"{glob.escape(self._cache)}*")
        if found:
            raise FileExistsError(
                f"{found[0]}: found it where the records are to be kept,"
                " expected nothing. Remove it or choose another place."
            )
        return self._cache

    def _parse(
        self, ds: tf.data.Dataset, batch_size: int, parts: Sequence[str]
    ) -> tf.data.Dataset:
        """Returns batches, padded, of batches of (row, serialised Example)."""
        pool = buffers.pool_of_batches(batch_size)

        def fill(
            row: np.ndarray, start_of_example: np.ndarray
        ) -> tuple[np.ndarray, ...]:
            num_patches = len(row)
            image = pool.take()
            pixels = image.reshape(batch_size, schema.IMAGE_BYTES)
            pixels[:num_patches] = pixels_of(start_of_example)
            pixels[num_patches:] = 0
            padded_row, label = np.zeros((2, batch_size), np.int64)
            padded_row[:num_patches] = row
            label[:num_patches] = labels_of(start_of_example)
            mask = np.arange(batch_size) < num_patches
            return (image, label, padded_row, mask)[: len(parts)]

        def parse(row: tf.Tensor, example: tf.Tensor) -> batches.Batch:
            inputs = decode_start(row, example)
            return batches.from_numpy(fill, inputs, batch_size, parts)

        return ds.map(
            parse, num_parallel_calls=self._num_threads or _NUM_PARSING
        )


@contextlib.contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Gives TensorFlow a global seed, which decides on shuffling too.

    What else the program draws with its own stays as it was.
    """
    context = eager_context.context()
    before = context._seed
    context._seed = seed
    try:
        yield
    finally:
        context._seed = before


def _cut(
    places: range, row: tf.Tensor, example: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns some places of a batch, as far as it has them."""
    return tuple(part[places.start : places.stop] for part in (row, example))


def shuffle_buffer(selected: records_folder.Selection, megabytes: int) -> int:
    """Returns the number of records of a shuffle buffer."""
    record_bytes = max(shard.layout.record_bytes for shard in selected.shards)
    wanted = megabytes * _MEGABYTE // record_bytes
    return max(1, min(wanted, selected.num_patches))


def read_blocks(path: tf.Tensor, first_row: tf.Tensor) -> tf.data.Dataset:
    """Returns rows and Examples of a shard, some at a time.

    Stages that work in parallel pay for each element that they hand on.
    """
    ds = tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES)
    return ds.enumerate(first_row).batch(BLOCK)


def decode_start(
    row: tf.Tensor, example: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns rows, and Examples as bytes up to the label: uint8 [n, bytes]."""
    return row, tf.io.decode_raw(example, tf.uint8, fixed_length=_LABEL + 1)


def pixels_of(start_of_example: np.ndarray) -> np.ndarray:
    """Returns the bytes of the images: a view, uint8 [n, 27648]."""
    return start_of_example[:, _IMAGE]


def labels_of(start_of_example: np.ndarray) -> np.ndarray:
    """Returns the labels, int8 [n]."""
    return start_of_example[:, _LABEL].view(np.int8)  # -1 begins with 255.
