"""`mmap`: shards mapped into memory, each batch gathered from them.

The page cache is the cache: what was read once is read from memory, as long as
there is room, and no process holds a copy of its own.
"""

import ctypes
import functools
import resource
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.pipeline import (
    batch_format,
    buffer_pool,
    patch_order,
    patch_source,
)
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import files

# Patches copied at a time: few enough for the processor's cache to hold, since
# NumPy gathers into a temporary array; many enough to outweigh the call.
_CHUNK = 128
_NUM_THREADS = 4
# The offsets are those of records without labels too.
_LAYOUT = tfrecord.layout(labeled=True)


class MappedPatches(patch_source.Patches):
    """Patches in mapped shards.

    The framing of each record is looked at the first time that it is gathered,
    unless the source asks for `never`.
    """

    input = "mmap"
    order = "a permutation"

    def __init__(
        self, source: patch_source.Source, selection: records_folder.Selection
    ) -> None:
        super().__init__(source, selection)
        shards = selection.shards
        self._num_calls = source.options.input_threads or _NUM_THREADS
        self._bytes, self._shard_start = _map_as_one(shards)
        # What begins at each address, without a copy.
        self._images = np.lib.stride_tricks.sliding_window_view(
            self._bytes, schema.IMAGE_BYTES
        )
        self._first_row = np.array([shard.first_row for shard in shards])
        layouts = [shard.layout for shard in shards]
        self._record_bytes = np.array([item.record_bytes for item in layouts])
        self._headers = np.array([[*item.header] for item in layouts], np.uint8)
        self._all_checked = source.options.check_crc == "never"
        self._checked = np.full(selection.num_patches, self._all_checked)

    def _read_steps(self, steps: patch_order.Steps) -> tf.data.Dataset:
        @tf.autograph.experimental.do_not_convert
        def batch_of_step(step: tf.Tensor) -> batch_format.Batch:
            return self._make_batch(
                patch_order.patches_of_step(step, steps, self.num_patches)
            )

        ds = tf.data.Dataset.range(steps.first_step, steps.num_steps)
        return ds.map(batch_of_step, num_parallel_calls=self._num_calls)

    def _make_batch(self, patches: tf.Tensor) -> batch_format.Batch:
        """Returns a training batch of some patches, int64 [n]."""
        size = patches.shape[0]
        pool = buffer_pool.pool_of_batches(size)

        def gather(patches: np.ndarray) -> tuple[np.ndarray, ...]:
            image = pool.take()
            return image, *self.gather(patches, image)

        return batch_format.from_numpy(
            gather, [patches], size, batch_format.TRAIN_PARTS
        )

    def _read_in_order(
        self, batch_size: int, first_batch: int, portion: batch_format.Portion
    ) -> tf.data.Dataset:
        return batch_format.read_in_order(
            self.gather,
            range(first_batch * batch_size, self.num_patches),
            batch_size=batch_size,
            num_calls=self._num_calls,
            portion=portion,
        )

    def gather(
        self, patches: np.ndarray, image: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Copies the pixels of patches; returns their labels and rows.

        Args:
            patches: int64 [n].
            image: uint8 [n, 96, 96, 3], to be written.

        Returns:
            int64 [n] each.

        Raises:
            DamagedRecordError: the framing of one is not right.
        """
        shard, record = self.selection.locate(patches)
        start = self._shard_start[shard] + record * self._record_bytes[shard]
        pixels = image.reshape(len(image), schema.IMAGE_BYTES)
        label = np.empty(len(start), np.int64)
        for first in range(0, len(start), _CHUNK):
            chunk = slice(first, first + _CHUNK)
            at = start[chunk]
            pixels[chunk] = self._images[at + _LAYOUT.image_offset]
            # The first byte of -1 is 255.
            label_bytes = self._bytes[at + _LAYOUT.label_offset]
            label[chunk] = label_bytes.view(np.int8)
        if not self._all_checked:
            new = np.flatnonzero(~self._checked[patches])
            self._check(shard[new], record[new], start[new])
            self._checked[patches[new]] = True
            self._all_checked = bool(self._checked.all())
        return label, self._first_row[shard] + record

    def _check(
        self, shard: np.ndarray, record: np.ndarray, start: np.ndarray
    ) -> None:
        """Refuses records that begin at `start` and whose framing is damaged.

        Only the CRC of the data takes a call for each record.
        """
        header = self._bytes[_ranges(start, tfrecord.HEADER_BYTES)]
        is_bad = (header != self._headers[shard]).any(1)
        data_start = (start + tfrecord.HEADER_BYTES).tolist()
        end = start + self._record_bytes[shard] - tfrecord.CRC_BYTES
        stored = self._bytes[_ranges(end, tfrecord.CRC_BYTES)].view("<u4")
        crcs = [
            tfrecord.masked_crc(self._bytes[first:last])
            for first, last in zip(data_start, end.tolist(), strict=True)
        ]
        is_bad |= stored[:, 0] != np.array(crcs, np.uint32)
        for index in np.flatnonzero(is_bad):
            file = self.selection.shards[shard[index]]
            first = start[index]
            file.check_record(
                int(record[index]),
                self._bytes[first : first + file.layout.record_bytes],
            )


def _ranges(start: np.ndarray, num_bytes: int) -> np.ndarray:
    """Returns the addresses from each start on: int64 [n, num_bytes]."""
    return start[:, np.newaxis] + np.arange(num_bytes)


def _map_as_one(
    shards: Sequence[records_folder.ShardFile],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mapped files as one range of addresses.

    One index then serves records of all shards, so that NumPy gathers them in
    one call. Between the files there may be addresses that are not there; only
    records are ever looked at.

    Returns:
        The range, uint8 and read-only, and where each shard begins in it.
    """
    # A map holds a file open until it ends.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + len(shards)
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    maps = [_map_once(shard, files.stamp(shard.path)) for shard in shards]
    address = np.array([m.ctypes.data for m in maps], np.int64)
    first = int(address.min())
    num_bytes = max(m.ctypes.data + m.nbytes for m in maps) - first
    memory = (ctypes.c_uint8 * num_bytes).from_address(first)
    whole = np.ctypeslib.as_array(memory)
    whole.flags.writeable = False
    return whole, address - first


@functools.cache
def _map_once(shard: records_folder.ShardFile, stamp: str) -> np.ndarray:
    """Returns a mapped file, which is mapped once in this process.

    TensorFlow keeps every NumPy function that a dataset calls, and with it the
    maps, as long as the process lives.

    Args:
        shard: The file.
        stamp: Tells it from one that was written anew, see `files.stamp`.
    """
    del stamp
    return shard.map()
