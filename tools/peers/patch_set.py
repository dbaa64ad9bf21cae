"""The patches that every peer gets."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration
from pcam_tfdata.images import tiff
from pcam_tfdata.sources import kaggle, listing
from pcam_tfdata.system import faults, name_arrays

Batches = Iterator[tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class PatchSet:
    """The labelled patches of a Kaggle folder, in the order of their CSV.

    Attributes:
        options: Name the folder, the same patches as records, and a batch.
        paths: Their TIFFs.
        ids: SHA-1 of the pixels of each.
        labels: int64 [num_patches], 0 or 1.
        folder: Where the peer keeps its own format.
    """

    options: configuration.Options
    paths: Sequence[str]
    ids: Sequence[str]
    labels: np.ndarray
    folder: str

    @property
    def batch_size(self) -> int:
        """Patches of a batch."""
        return self.options.batch_size

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, name: str) -> str:
        """Returns where a file or folder of a peer's own format is."""
        return os.path.join(self.folder, name)

    @functools.cached_property
    def images(self) -> np.ndarray:
        """uint8 [num_patches, 96, 96, 3], mapped from a file."""
        return np.load(self._images_path, mmap_mode="r")

    def write_images(self) -> None:
        """Writes the file of `images`, from which the formats are made."""
        shape = (len(self), *schema.IMAGE_SHAPE)
        images = np.lib.format.open_memmap(
            self._images_path, "w+", np.uint8, shape
        )
        for row, source in enumerate(self.paths):
            images[row] = tiff.read(source)
        images.flush()

    @property
    def _images_path(self) -> str:
        return os.path.join(self.options.scratch_dir or "", "images.npy")


def find_patches(options: configuration.Options, folder: str = "") -> PatchSet:
    """Returns the patches of the Kaggle folder, for a peer with a folder.

    Raises:
        faults.BadInputError, FileNotFoundError: the folder is not as it should.
        ValueError: its names are no hashes.
    """
    listed, problems = kaggle.list_train(options.input_dir)
    if problems:
        raise faults.BadInputError(problems)
    if not name_arrays.are_hashes(listed.names).all():
        raise ValueError(
            f"{options.input_dir}: found names that are no SHA-1, expected the"
            " hash of the pixels: it is what peers are checked by."
        )
    return PatchSet(
        options,
        [os.path.abspath(path) for path in listing.list_paths(listed.images)],
        name_arrays.to_text(listed.names),
        listed.labels.astype(np.int64),
        folder,
    )
