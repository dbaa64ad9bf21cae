"""`device`: every replica holds all patches, and gathers its part of a batch.

What crosses the bus for a step is the numbers of its patches.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.pipeline import batches, mapped, order
from pcam_tfdata.records import records_folder

# Gathered as wide integers: TensorFlow has no gather of uint8 on GPUs, and a
# tensor of more than 2^31 elements may overflow its index.
_WORD = np.dtype(np.int64)
_WORDS = schema.IMAGE_BYTES // _WORD.itemsize
_READ_PATCHES = 1024
# What TensorFlow says where a copy to a GPU finds no room.
_FULL = "Dst tensor is not initialized"


class ResidentPatches:
    """Patches in the memory of devices.

    A batch of its datasets has `patch` (int64 [B]) in place of `image`; `fill`,
    called in a replica, gathers there.

    Args:
        mapped_patches: The same patches in mapped shards, to be read once.
        devices: Of the replicas, in their order.
        num_threads: Of the pipeline; 0 for TensorFlow's own.

    Raises:
        ValueError: a device has no room for the patches.

    Attributes:
        input: Its name among `choices.INPUTS`.
        selection: Which patches.
        order: As of the mapped ones.
        source: Set by `patch_source.open_patches`: what was opened.
        plan: Set by `patch_source.open_patches`: which way in, and why.
    """

    input = "device"
    order = mapped.MappedPatches.order
    source = None
    plan = ""

    def __init__(
        self,
        mapped_patches: mapped.MappedPatches,
        devices: Sequence[str],
        num_threads: int = 0,
    ) -> None:
        self._num_threads = num_threads
        self.selection = mapped_patches.selection
        self._starts = _split_starts(self.selection)
        self._labels = np.empty(self.num_patches, np.int64)
        self._rows = np.empty(self.num_patches, np.int64)
        self._tensors: list[list[tf.Tensor]] = [[] for _ in devices]
        for start, end in zip(self._starts, self._starts[1:], strict=False):
            words = self._read(mapped_patches, start, end)
            for tensors, device in zip(self._tensors, devices, strict=True):
                tensors.append(_place(words, device))

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
        """See `pipeline.train_batches`; without images."""
        positions = order.Order(self.num_patches, batch_size, seed)
        ds = tf.data.Dataset.range(first_step, num_steps)
        ds = ds.map(lambda step: positions.patches_of_step(step, portion))
        ds = ds.map(self._describe)
        return batches.limit_threads(ds.prefetch(1), self._num_threads)

    def eval_batches(
        self,
        *,
        batch_size: int,
        first_batch: int = 0,
        portion: batches.Portion = batches.WHOLE,
    ) -> tf.data.Dataset:
        """See `pipeline.eval_batches`; without images."""
        first_patch = first_batch * batch_size
        places = portion.places(batch_size)
        ds = tf.data.Dataset.range(first_patch, self.num_patches)
        ds = ds.batch(batch_size)
        ds = ds.map(lambda patch: patch[places.start : places.stop])
        ds = ds.map(self._describe)
        ds = ds.map(lambda batch: batches.pad(batch, len(places)))
        return batches.limit_threads(ds.prefetch(1), self._num_threads)

    def fill(self, batch: batches.Batch) -> batches.Batch:
        """Returns the batch with its images, gathered on this replica."""
        batch = dict(batch)
        patch = batch.pop("patch")
        context = tf.distribute.get_replica_context()
        replica = 0
        if context is not None:  # Not within the scope of a strategy.
            replica = tf.get_static_value(context.replica_id_in_sync_group)
            replica %= len(self._tensors)  # Other processes have the others.
        words = tf.zeros([tf.size(patch), _WORDS], tf.int64)
        for start, tensor in zip(
            self._starts, self._tensors[replica], strict=False
        ):
            inside = (patch >= start) & (patch < start + tensor.shape[0])
            found = tf.gather(tensor, tf.where(inside, patch - start, 0))
            words = tf.where(inside[:, tf.newaxis], found, words)
        size = patch.shape[0] or tf.size(patch)
        pixels = tf.bitcast(words, tf.uint8)
        image = tf.reshape(pixels, [size, *schema.IMAGE_SHAPE])
        if "mask" in batch:  # Padding is black, whichever way the batch came.
            image *= tf.cast(batch["mask"], tf.uint8)[:, None, None, None]
        return batch | {"image": image}

    def _describe(self, patch: tf.Tensor) -> batches.Batch:
        return {
            "patch": patch,
            "label": tf.gather(self._labels, patch),
            "row": tf.gather(self._rows, patch),
        }

    def _read(
        self, patches: mapped.MappedPatches, start: int, end: int
    ) -> np.ndarray:
        """Returns patches as words: int64 [end - start, 3456]."""
        image = np.empty((end - start, *schema.IMAGE_SHAPE), np.uint8)
        for first in range(start, end, _READ_PATCHES):
            part = slice(first, min(first + _READ_PATCHES, end))
            self._labels[part], self._rows[part] = patches.gather(
                np.arange(part.start, part.stop),
                image[part.start - start : part.stop - start],
            )
        return image.reshape(-1, schema.IMAGE_BYTES).view(_WORD)


def _place(words: np.ndarray, device: str) -> tf.Tensor:
    """Returns patches as words, int64 [num_patches, 3456], on a device."""
    try:
        with tf.device(device):
            return tf.identity(tf.constant(words))
    except tf.errors.OpError as error:
        told = " ".join(str(error.message).split())
        is_full = isinstance(error, tf.errors.ResourceExhaustedError)
        if not is_full and _FULL not in told:
            raise
        raise ValueError(
            f"--input=device: found no room on {device} for"
            f" {words.nbytes / (1 << 20):,.0f} MiB of patches ({told[:200]}),"
            " expected enough for all. Take mmap."
        ) from error


def _split_starts(selected: records_folder.Selection) -> list[int]:
    """Returns the first patch of each split, and how many there are in all."""
    shards = selected.shards
    firsts = [
        int(start)
        for number, start in enumerate(selected.starts[:-1])
        if not number or shards[number].split != shards[number - 1].split
    ]
    return [*firsts, selected.num_patches]
