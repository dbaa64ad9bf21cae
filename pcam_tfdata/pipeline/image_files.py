"""Image files as patches, for prediction without records."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.images import tiff
from pcam_tfdata.pipeline import batches
from pcam_tfdata.system import faults

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

        def read(start: np.ndarray) -> tuple[np.ndarray, ...]:
            row, label = np.zeros((2, batch_size), np.int64)
            mask = np.arange(batch_size) < self.num_patches - start
            row[mask] = start + np.flatnonzero(mask)
            label[mask] = schema.UNLABELED
            image = np.zeros((batch_size, *schema.IMAGE_SHAPE), np.uint8)
            self._read(row[mask], image)
            return image, label, row, mask

        @tf.autograph.experimental.do_not_convert
        def batch_from(start: tf.Tensor) -> batches.Batch:
            return batches.from_numpy(
                read, [start], batch_size, batches.EVAL_PARTS
            )

        first_patch = first_batch * batch_size
        ds = tf.data.Dataset.range(first_patch, self.num_patches, batch_size)
        ds = ds.map(batch_from, num_parallel_calls=_NUM_CALLS)
        return batches.limit_threads(ds.prefetch(1), 0)

    plan = ""  # There is one way in.
    fill = staticmethod(batches.whole)

    def _read(self, places: np.ndarray, image: np.ndarray) -> None:
        """Reads the files at some places; `image` begins with their pixels."""
        for number, place in enumerate(places):
            path = self._paths[place]
            try:
                image[number] = tiff.read(path)
            except (OSError, ValueError) as error:
                self._faults[int(place)] = faults.Fault(path, str(error))
