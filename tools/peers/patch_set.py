"""The patches that every peer gets, and their arrays on disk."""

import dataclasses
import os

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration
from pcam_tfdata.images import tiff
from pcam_tfdata.sources import kaggle, listing
from pcam_tfdata.system import faults, name_arrays


@dataclasses.dataclass(frozen=True)
class PatchSet:
    """The labelled patches of a Kaggle folder, in the order of their CSV.

    Attributes:
        paths: Their TIFFs.
        ids: SHA-1 of the pixels of each.
        labels: 0 or 1.
        data: The same patches as records.
        folder: Where peers keep their own formats.
    """

    paths: tuple[str, ...]
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    data: configuration.Data
    folder: str

    @property
    def batch_size(self) -> int:
        """Patches of a batch."""
        return self.data.batch_size

    @property
    def num_patches(self) -> int:
        """How many there are."""
        return len(self.paths)

    def place(self, name: str) -> str:
        """Returns the path of a peer's file or folder."""
        return os.path.join(self.folder, name)

    def map_images(self) -> np.ndarray:
        """Returns uint8 [num_patches, 96, 96, 3], mapped from `images.npy`."""
        return np.load(self.place("images.npy"), mmap_mode="r")

    def load_labels(self) -> np.ndarray:
        """Returns int64 [num_patches]."""
        return np.array(self.labels, np.int64)


def find(input_dir: str, data: configuration.Data, folder: str) -> PatchSet:
    """Returns the patches of a Kaggle folder whose records are `data`.

    Raises:
        faults.BadInputError, FileNotFoundError: the folder is not as it should.
        ValueError: its names are no hashes, or the records hold other patches.
    """
    listed, found = kaggle.list_train(input_dir)
    if found:
        raise faults.BadInputError(found)
    if not name_arrays.are_hashes(listed.names).all():
        raise ValueError(
            f"{input_dir}: found names that are no SHA-1, expected the hash of"
            " the pixels: it is what peers are checked by."
        )
    if len(listed) != data.num_patches:
        raise ValueError(
            f"{data.records_dir}: found {data.num_patches:,} labelled patches,"
            f" expected the {len(listed):,} of {input_dir}. Convert it again."
        )
    return PatchSet(
        tuple(map(os.path.abspath, listing.list_paths(listed.images))),
        tuple(name_arrays.to_text(listed.names)),
        tuple(listed.labels.tolist()),
        data,
        folder,
    )


def write_array(patches: PatchSet) -> None:
    """Writes `images.npy`, from which the other formats are made."""
    shape = (patches.num_patches, *schema.IMAGE_SHAPE)
    path = patches.place("images.npy")
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    for place, source in enumerate(patches.paths):
        array[place] = tiff.read(source)
    array.flush()
