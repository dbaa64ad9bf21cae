"""Image files as patches, for prediction without records."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.images import tiff
from pcam_tfdata.pipeline import batch_format
from pcam_tfdata.system import faults

# Batches that are read at a time: the disk answers one while another is decoded.
_NUM_CALLS = 4


class ImageFiles:
    """Image files as patches, read in order as `Patches.eval_batches` does.

    Files that cannot be used give a black patch and a fault.

    Args:
        paths: TIFFs, or whatever `tiff.decode` takes.
        read: Gives the pixels of a path. With another one, patches of an array may
            stand for paths.
    """

    plan = ""  # There is one input mode.
    fill = staticmethod(batch_format.whole)

    def __init__(
        self,
        paths: Sequence[Any] | np.ndarray,
        read: Callable[[Any], np.ndarray] = tiff.read,
    ) -> None:
        self._paths, self._read_one = paths, read
        self._faults: dict[int, faults.Fault] = {}

    @property
    def num_patches(self) -> int:
        """How many files there are."""
        return len(self._paths)

    @property
    def faults(self) -> list[faults.Fault]:
        """What was wrong with the files read so far, in their order."""
        return [self._faults[index] for index in sorted(self._faults)]

    def eval_batches(
        self, *, batch_size: int, first_batch: int = 0
    ) -> tf.data.Dataset:
        """Returns every file once; `row` is its index."""
        ds = batch_format.read_in_order(
            self._read,
            range(first_batch * batch_size, self.num_patches),
            batch_size=batch_size,
            num_calls=_NUM_CALLS,
        )
        return batch_format.limit_threads(ds.prefetch(1), 0)

    def _read(
        self, indices: np.ndarray, image: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads some files into `image`; returns labels and rows."""
        for number, index in enumerate(indices.tolist()):
            path = self._paths[index]
            try:
                image[number] = self._read_one(path)
            except (OSError, ValueError) as error:
                image[number] = 0
                self._faults[index] = faults.Fault(path, str(error))
        return np.full(len(indices), schema.UNLABELED), indices
