"""`mmap`: shards mapped into memory, each batch gathered from them.

The page cache is the cache: what was read once is read from memory, as long as
there is room, and no process holds a copy of its own.
"""

import ctypes

import numpy as np
import tensorflow as tf

from pcam_tfdata import records, schema
from pcam_tfdata.pipeline import batches, buffers, order, selection

# Patches copied at a time: few enough for the processor's cache to hold, since
# NumPy gathers into a temporary array; many enough to outweigh the call.
_CHUNK = 64
_NUM_THREADS = 4


class MappedPatches:
    """Patches in mapped shards.

    Args:
        selected: Which.
        num_threads: Of the pipeline; 0 for as many as gathering can use.
        check_crc: Whether each record's CRC is looked at the first time that it
            is gathered. Its length field is looked at every time.

    Attributes:
        selection: As given.
        order: What training follows; two ways of one order give one run.
        plan: Set by `pipeline.open_patches`: which way in, and why.
    """

    order = "a permutation"
    plan = ""

    def __init__(
        self,
        selected: selection.Selection,
        *,
        num_threads: int = 0,
        check_crc: bool = True,
    ) -> None:
        buffers.keep_freed_memory()
        self.selection = selected
        self._num_threads = num_threads
        self._memory = _Memory(selected)
        self._checked = np.full(selected.num_patches, not check_crc)

    @property
    def num_patches(self) -> int:
        """How many there are."""
        return self.selection.num_patches

    def train_batches(
        self, *, batch_size: int, seed: int, first_step: int, num_steps: int
    ) -> tf.data.Dataset:
        """See `pipeline.train_batches`."""
        positions = order.Order(self.num_patches, batch_size, seed)
        pool = _pool(batch_size)

        def gather(
            patches: np.ndarray,
        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            image = pool.take()
            return image, *self.gather(patches, image)

        def batch_of_step(step: tf.Tensor) -> batches.Batch:
            patches = positions.patches_of_step(step)
            return batches.from_numpy(
                gather, [patches], batch_size, batches.TRAIN_PARTS
            )

        ds = tf.data.Dataset.range(first_step, num_steps)
        ds = ds.map(batch_of_step, num_parallel_calls=self._num_calls)
        ds = ds.prefetch(1)  # Last: overlaps with the step.
        return batches.limit_threads(ds, self._num_threads)

    def eval_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """See `pipeline.eval_batches`."""
        pool = _pool(batch_size)

        def gather(start: np.ndarray) -> tuple[np.ndarray, ...]:
            patches = np.arange(
                start, min(start + batch_size, self.num_patches)
            )
            label, row = np.zeros((2, batch_size), np.int64)
            image = pool.take()
            num_patches = len(patches)
            image[num_patches:] = 0
            label[:num_patches], row[:num_patches] = self.gather(
                patches, image[:num_patches]
            )
            return image, label, row, np.arange(batch_size) < num_patches

        def batch_from(start: tf.Tensor) -> batches.Batch:
            return batches.from_numpy(
                gather, [start], batch_size, batches.EVAL_PARTS
            )

        ds = tf.data.Dataset.range(0, self.num_patches, batch_size)
        ds = ds.map(batch_from, num_parallel_calls=self._num_calls)
        ds = ds.prefetch(1)
        return batches.limit_threads(ds, self._num_threads)

    fill = staticmethod(batches.whole)

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
        memory = self._memory
        shard, record = self.selection.locate(patches)
        start = memory.find(shard, record)
        bad = np.flatnonzero(~memory.have_length(shard, start))
        unchecked = np.flatnonzero(~self._checked[patches])
        for place in (*bad[:1], *unchecked):
            found = self.selection.shards[shard[place]]
            records.check_frame(
                memory.read(start[place], found.layout.record_bytes),
                found.layout,
                found.path,
                int(record[place]),
            )
        self._checked[patches[unchecked]] = True
        memory.copy_images(shard, start, image)
        return memory.labels(shard, start), memory.rows(shard, record)

    @property
    def _num_calls(self) -> int:
        return self._num_threads or _NUM_THREADS


class _Memory:
    """The mapped files as one range of addresses.

    One index then serves records of all shards, so that NumPy gathers them in
    one call. Between the files there may be addresses that are not there; only
    records are ever looked at.
    """

    def __init__(self, selected: selection.Selection) -> None:
        shards = selected.shards
        self._maps = [
            records.map_shard(shard.path, shard.num_records, shard.layout)
            for shard in shards
        ]
        address = np.array([m.ctypes.data for m in self._maps], np.int64)
        ends = [m.ctypes.data + m.nbytes for m in self._maps]
        first = int(address.min())
        memory = (ctypes.c_uint8 * (max(ends) - first)).from_address(first)
        self._bytes = np.ctypeslib.as_array(memory)
        self._bytes.flags.writeable = False
        self._images = _windows(self._bytes, schema.IMAGE_BYTES)
        self._lengths = _windows(self._bytes, records.LENGTH_BYTES)
        self._start = address - first

        def of_each(values: list[int]) -> np.ndarray:
            return np.array(values, np.int64)

        layouts = [shard.layout for shard in shards]
        self._record_bytes = of_each([lay.record_bytes for lay in layouts])
        self._image_offset = of_each([lay.image_offset for lay in layouts])
        self._label_offset = of_each([lay.label_offset for lay in layouts])
        self._first_row = of_each([shard.first_row for shard in shards])
        self._length_field = np.array(
            [records.length_field(lay) for lay in layouts]
        )

    def find(self, shard: np.ndarray, record: np.ndarray) -> np.ndarray:
        """Returns where records begin: int64 [n]."""
        return self._start[shard] + record * self._record_bytes[shard]

    def have_length(self, shard: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Returns whether the length fields are right: bool [n]."""
        found = self._lengths[start]
        return (found == self._length_field[shard]).all(axis=1)

    def read(self, start: int, num_bytes: int) -> bytes:
        return self._bytes[start : start + num_bytes].tobytes()

    def copy_images(
        self, shard: np.ndarray, start: np.ndarray, image: np.ndarray
    ) -> None:
        pixels = image.reshape(len(image), schema.IMAGE_BYTES)
        start = start + self._image_offset[shard]
        for place in range(0, len(start), _CHUNK):
            chunk = slice(place, place + _CHUNK)
            pixels[chunk] = self._images[start[chunk]]

    def labels(self, shard: np.ndarray, start: np.ndarray) -> np.ndarray:
        # The first byte of -1 is 255.
        found = self._bytes[start + self._label_offset[shard]].view(np.int8)
        return found.astype(np.int64)

    def rows(self, shard: np.ndarray, record: np.ndarray) -> np.ndarray:
        return self._first_row[shard] + record


def _windows(memory: np.ndarray, width: int) -> np.ndarray:
    """Returns the `width` bytes from each address on, without a copy."""
    return np.lib.stride_tricks.as_strided(
        memory, (len(memory) - width + 1, width), (1, 1), writeable=False
    )


def _pool(batch_size: int) -> buffers.BufferPool:
    return buffers.BufferPool((batch_size, *schema.IMAGE_SHAPE))
