"""Image files as patches, for prediction without records."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import faults, schema, tiff
from pcam_tfdata.pipeline import batches, calls

# Batches that are read at a time: the disk answers one while another is decoded.
_NUM_CALLS = 4


class ImageFiles:
    """Image files as patches, for prediction without records.

    Files that cannot be used give a black patch and a fault.

    Args:
        paths: TIFFs, or whatever `tiff.decode` takes.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._faults: dict[int, faults.Fault] = {}

    @property
    def num_patches(self) -> int:
        """How many files there are."""
        return len(self._paths)

    @property
    def faults(self) -> list[faults.Fault]:
        """What was wrong with the files read so far, in their order."""
        return [self._faults[place] for place in sorted(self._faults)]

    def eval_batches(
        self, *, batch_size: int, first_batch: int = 0
    ) -> tf.data.Dataset:
        """Returns every file once, as any `eval_batches`; `row` is its place."""
        first_patch = first_batch * batch_size
        ds = tf.data.Dataset.range(first_patch, self.num_patches)
        ds = ds.batch(batch_size)
        ds = ds.map(self._read_batch, num_parallel_calls=_NUM_CALLS)
        ds = ds.map(lambda batch: batches.pad(batch, batch_size))
        return batches.limit_threads(ds.prefetch(1), 0)

    plan = ""  # There is one way in.
    fill = staticmethod(batches.whole)

    def _read_batch(self, places: tf.Tensor) -> batches.Batch:
        read = calls.counted(self._read)
        image = tf.numpy_function(read, [places], tf.uint8)
        image = tf.ensure_shape(image, [*places.shape, *schema.IMAGE_SHAPE])
        label = tf.fill(tf.shape(places), tf.constant(-1, tf.int64))
        return {"image": image, "label": label, "row": places}

    def _read(self, places: np.ndarray) -> np.ndarray:
        image = np.zeros((len(places), *schema.IMAGE_SHAPE), np.uint8)
        for number, place in enumerate(places):
            path = self._paths[place]
            try:
                image[number] = tiff.read(path)
            except (OSError, ValueError) as error:
                self._faults[int(place)] = faults.Fault(path, str(error))
        return image
