"""`device`: every replica holds all patches, and gathers its part of a batch.

What crosses the bus for a step is the numbers of its patches.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.pipeline import batch_format, mmap_mode, patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import faults

# Gathered as wide integers: TensorFlow has no gather of uint8 on GPUs, and a
# tensor of more than 2^31 elements may overflow its index.
_WORD = np.dtype(np.int64)
_WORDS = schema.IMAGE_BYTES // _WORD.itemsize
PIECE_PATCHES = 1 << 16  # Of a tensor.
# What TensorFlow says where a copy to a GPU finds no room.
_FULL = "Dst tensor is not initialized"


class ResidentPatches(mmap_mode.MappedPatches):
    """Patches in the memory of devices.

    A batch of its datasets has `patch` (int64 [B]) in place of `image`; `fill`,
    called in a replica, gathers there.

    Args:
        source: What was asked for.
        selection: The shards of it.
        devices: Devices of the replicas, in their order; none for the CPU.

    Raises:
        ValueError: a device has no room for the patches.
    """

    input = "device"

    def __init__(
        self,
        source: patch_source.Source,
        selection: records_folder.Selection,
        devices: Sequence[str],
    ) -> None:
        super().__init__(source, selection)
        devices = devices or ["/CPU:0"]
        self._tensors: list[list[tf.Tensor]] = [[] for _ in devices]
        labels_and_rows = []
        for piece in self._list_pieces():
            image = np.empty((len(piece), *schema.IMAGE_SHAPE), np.uint8)
            labels_and_rows.append(self.gather(np.array(piece), image))
            words = image.reshape(-1, schema.IMAGE_BYTES).view(_WORD)
            for tensors, device in zip(self._tensors, devices, strict=True):
                tensors.append(_copy_to(device, words))
        self._labels, self._rows = np.concatenate(labels_and_rows, axis=1)

    def _list_pieces(self) -> list[range]:
        """Returns the patches of each tensor."""
        patches = range(self.num_patches)
        starts = patches[::PIECE_PATCHES]
        return [patches[start : start + PIECE_PATCHES] for start in starts]

    def _make_batch(self, patches: tf.Tensor) -> batch_format.Batch:
        return {
            "patch": patches,
            "label": tf.gather(self._labels, patches),
            "row": tf.gather(self._rows, patches),
        }

    def _read_in_order(
        self, batch_size: int, first_batch: int, portion: batch_format.Portion
    ) -> tf.data.Dataset:
        indices = np.array(portion.indices(batch_size))

        def batch_from(first: tf.Tensor) -> batch_format.Batch:
            mask = first + indices < self.num_patches
            batch = self._make_batch(tf.where(mask, first + indices, 0))
            return {
                name: tf.where(mask, part, 0) for name, part in batch.items()
            } | {"mask": mask}

        first = first_batch * batch_size
        ds = tf.data.Dataset.range(first, self.num_patches, batch_size)
        return ds.map(batch_from)

    def fill(self, batch: batch_format.Batch) -> batch_format.Batch:
        """Returns the batch with its images, gathered on this replica."""
        batch = dict(batch)
        patch = batch.pop("patch")
        context = tf.distribute.get_replica_context()
        replica = 0
        if context is not None:  # Not within the scope of a strategy.
            replica = tf.get_static_value(context.replica_id_in_sync_group)
            replica %= len(self._tensors)  # Other processes have the others.
        words = tf.zeros([tf.size(patch), _WORDS], tf.int64)
        for piece, tensor in zip(
            self._list_pieces(), self._tensors[replica], strict=True
        ):
            inside = (patch >= piece.start) & (patch < piece.stop)
            index = tf.where(inside, patch - piece.start, 0)
            words = tf.where(
                inside[:, tf.newaxis], tf.gather(tensor, index), words
            )
        size = patch.shape[0] or tf.size(patch)
        pixels = tf.bitcast(words, tf.uint8)
        image = tf.reshape(pixels, [size, *schema.IMAGE_SHAPE])
        if "mask" in batch:  # Padding is black in every input mode.
            image *= tf.cast(batch["mask"], tf.uint8)[:, None, None, None]
        return batch | {"image": image}


def _copy_to(device: str, words: np.ndarray) -> tf.Tensor:
    """Returns patches as words, int64 [num_patches, 3456], on a device."""
    try:
        with tf.device(device):
            return tf.identity(tf.constant(words))
    except tf.errors.OpError as error:
        is_full = isinstance(error, tf.errors.ResourceExhaustedError)
        if not is_full and _FULL not in str(error.message):
            raise
        raise ValueError(
            f"--input=device: found no room on {device} for"
            f" {words.nbytes / (1 << 20):,.0f} MiB of patches"
            f" ({faults.one_line(error.message, 200)}), expected enough for all."
            " Take mmap."
        ) from error
