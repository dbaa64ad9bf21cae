"""`mmap`: shards mapped into memory, each batch gathered from them.

The page cache is the cache: what was read once is read from memory, as long as
there is room, and no process holds a copy of its own.
"""

import ctypes
import functools
import os
import resource
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.pipeline import (
    batch_format,
    buffer_pool,
    mode_base,
    patch_order,
)
from pcam_tfdata.records import records_folder, tfrecord

# Patches copied at a time: few enough for the processor's cache to hold, since
# NumPy gathers into a temporary array; many enough to outweigh the call.
_CHUNK = 128
_NUM_THREADS = 4
# The offsets are those of records without labels too.
_LAYOUT = tfrecord.layout(labeled=True)


class MappedPatches(mode_base.Patches):
    """Patches in mapped shards.

    Each record's length field is looked at every time that it is gathered, its
    CRC the first time, unless the source asks for `never`.
    """

    input = "mmap"
    order = "a permutation"

    def __init__(
        self,
        source: mode_base.Source,
        selection: records_folder.Selection,
    ) -> None:
        super().__init__(source, selection)
        self._num_calls = source.input_threads or _NUM_THREADS
        self._memory = _Memory(selection.shards)
        self._all_checked = source.check_crc == "never"
        self._checked = np.full(selection.num_patches, self._all_checked)
        shards = selection.shards
        self._first_row = np.array([shard.first_row for shard in shards])
        self._example_bytes = np.array(
            [shard.layout.example_bytes for shard in shards], np.uint64
        )

    def _read_steps(self, steps: mode_base.Steps) -> tf.data.Dataset:
        order = patch_order.Order(
            self.num_patches, steps.batch_size, steps.seed
        )
        pool = buffer_pool.pool_of_batches(steps.portion_size)

        def gather(patches: np.ndarray) -> tuple[np.ndarray, ...]:
            image = pool.take()
            return image, *self.gather(patches, image)

        @tf.autograph.experimental.do_not_convert
        def batch_of_step(step: tf.Tensor) -> batch_format.Batch:
            return batch_format.from_numpy(
                gather,
                [order.patches_of_step(step, steps.portion)],
                steps.portion_size,
                batch_format.TRAIN_PARTS,
            )

        ds = tf.data.Dataset.range(steps.first_step, steps.num_steps)
        return ds.map(batch_of_step, num_parallel_calls=self._num_calls)

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
        start = self._memory.locate(shard, record)
        label, length = self._memory.copy(start, image)
        bad = np.flatnonzero(length != self._example_bytes[shard])
        self._check(shard, record, start, bad[:1])
        if not self._all_checked:
            new = np.flatnonzero(~self._checked[patches])
            bad = self._memory.find_bad_crcs(shard[new], start[new])
            self._check(shard, record, start, new[bad])
            self._checked[patches[new]] = True
            self._all_checked = bool(self._checked.all())
        return label, self._first_row[shard] + record

    def _check(
        self,
        shard: np.ndarray,
        record: np.ndarray,
        start: np.ndarray,
        suspects: np.ndarray,
    ) -> None:
        """Raises what is wrong with those records that the arrays name."""
        for index in suspects:
            file = self.selection.shards[shard[index]]
            tfrecord.check_frame(
                self._memory.view(start[index], file.layout.record_bytes),
                file.layout,
                file.path,
                int(record[index]),
            )


class _Memory:
    """The mapped files as one range of addresses.

    One index then serves records of all shards, so that NumPy gathers them in
    one call. Between the files there may be addresses that are not there; only
    records are ever looked at.
    """

    def __init__(self, shards: Sequence[records_folder.ShardFile]) -> None:
        self._maps = _map_shards(shards)
        address = np.array([m.ctypes.data for m in self._maps], np.int64)
        ends = [m.ctypes.data + m.nbytes for m in self._maps]
        first = int(address.min())
        memory = (ctypes.c_uint8 * (max(ends) - first)).from_address(first)
        self._bytes = np.ctypeslib.as_array(memory)
        self._bytes.flags.writeable = False
        self._start = address - first
        self._record_bytes = np.array([s.layout.record_bytes for s in shards])
        self._length_crc = np.array(
            [tfrecord.length_crc(s.layout) for s in shards], np.uint32
        )
        # What begins at each address, without a copy.
        self._images = np.lib.stride_tricks.as_strided(
            self._bytes,
            (len(self._bytes) - schema.IMAGE_BYTES + 1, schema.IMAGE_BYTES),
            (1, 1),
            writeable=False,
        )
        self._lengths = _integers(self._bytes, "<u8")
        self._crcs = _integers(self._bytes, "<u4")

    def locate(self, shard: np.ndarray, record: np.ndarray) -> np.ndarray:
        """Returns where records begin: int64 [n]."""
        return self._start[shard] + record * self._record_bytes[shard]

    def view(self, start: int, num_bytes: int) -> np.ndarray:
        """Returns bytes from an address on: uint8 [num_bytes], no copy."""
        return self._bytes[start : start + num_bytes]

    def find_bad_crcs(self, shard: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Returns the places of records that do not have one of their CRCs.

        Only the CRC of the data takes a call for each record.
        """
        stored = self._crcs[start + tfrecord.LENGTH_BYTES]
        is_bad = stored != self._length_crc[shard]
        end = start + self._record_bytes[shard] - tfrecord.CRC_BYTES
        data = zip(
            (start + tfrecord.HEADER_BYTES).tolist(),
            end.tolist(),
            self._crcs[end].tolist(),
            strict=True,
        )
        is_other = (
            tfrecord.masked_crc(self._bytes[first:last]) != crc
            for first, last, crc in data
        )
        is_bad |= np.fromiter(is_other, bool, len(start))
        return np.flatnonzero(is_bad)

    def copy(
        self, start: np.ndarray, image: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Copies the pixels of the records that begin at `start`, int64 [n].

        Returns:
            Labels, int64 [n], and length fields, uint64 [n]: read while their
            neighbourhood is in the processor's cache.
        """
        pixels = image.reshape(len(image), schema.IMAGE_BYTES)
        label = np.empty(len(start), np.int64)
        length = np.empty(len(start), np.uint64)
        for first in range(0, len(start), _CHUNK):
            chunk = slice(first, first + _CHUNK)
            at = start[chunk]
            pixels[chunk] = self._images[at + _LAYOUT.image_offset]
            # The first byte of -1 is 255.
            label_bytes = self._bytes[at + _LAYOUT.label_offset]
            label[chunk] = label_bytes.view(np.int8)
            length[chunk] = self._lengths[at]
        return label, length


def _map_shards(shards: Sequence[records_folder.ShardFile]) -> list[np.ndarray]:
    """Returns the mapped files, each mapped once in this process.

    TensorFlow keeps every NumPy function that a dataset calls, and with it the
    maps, as long as the process lives.
    """
    _allow_open_files(len(shards))
    maps = []
    for shard in shards:
        status = os.stat(shard.path)
        # A file that was written anew is another one.
        identity = (
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        )  # fmt: skip
        maps.append(
            _map_once(shard.path, identity, shard.num_records, shard.layout)
        )
    return maps


@functools.cache
def _map_once(
    path: str,
    identity: tuple[int, ...],
    num_records: int,
    layout: tfrecord.Layout,
) -> np.ndarray:
    del identity
    return tfrecord.map_shard(path, num_records, layout)


def _allow_open_files(number: int) -> None:
    """Lets the process have more files open: a map holds one until it ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + number
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _integers(memory: np.ndarray, dtype: str) -> np.ndarray:
    """Returns the integers that begin at each address, without a copy."""
    count = len(memory) - np.dtype(dtype).itemsize + 1
    return np.ndarray(count, dtype, buffer=memory, strides=(1,))
