"""Peers on NumPy, and on PyTorch's DataLoader."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pcam_tfdata.benchmark import limits
from peers import patch_set


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set of as many items, each read by a function of its row."""

    size: int
    read: Callable[[Any], Any]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> Any:
        return self.read(row)


class BatchDataset(Dataset):
    """A data set that is read a batch at a time."""

    def __getitems__(self, rows: Sequence[int]) -> Any:
        return self.read(rows)


def gather_npy(patches: patch_set.PatchSet) -> patch_set.Batches:
    """.npy; in the main process, so nothing overlaps with a step."""
    images, labels = patches.images, patches.labels
    for rows in limits.shuffle_rows(len(patches), patches.batch_size):
        yield images[rows], labels[rows]


def read_tiffs(patches: patch_set.PatchSet) -> patch_set.Batches:
    """TIFF by Pillow; 2 worker processes, persistent,
    prefetch_factor 4, no pinned memory.
    """

    def read(row: int) -> tuple[np.ndarray, int]:
        with Image.open(patches.paths[row]) as image:
            return np.array(image), int(patches.labels[row])

    return _load(Dataset(len(patches), read), patches)


def _write_hdf5(patches: patch_set.PatchSet) -> None:
    """Writes x and y, named and shaped as PatchCamelyon's files have them."""
    import h5py

    labels = patches.labels.reshape(-1, 1, 1, 1)
    for name, array in (("x", patches.images), ("y", labels)):
        with h5py.File(patches.path(f"{name}.h5"), "w") as file:
            file.create_dataset(name, data=array)


def read_hdf5(patches: patch_set.PatchSet) -> patch_set.Batches:
    """HDF5, opened for each patch as torchvision's PCAM does; 2 worker processes,
    persistent, prefetch_factor 4, no pinned memory.
    """
    import h5py

    patches.write(_write_hdf5)

    def read(row: int) -> tuple[np.ndarray, int]:
        with h5py.File(patches.path("x.h5")) as file:
            image = Image.fromarray(file["x"][row]).convert("RGB")
        with h5py.File(patches.path("y.h5")) as file:
            return np.array(image), int(file["y"][row, 0, 0, 0])

    return _load(Dataset(len(patches), read), patches)


def read_open_hdf5(patches: patch_set.PatchSet) -> patch_set.Batches:
    """The same files, opened once by each worker; 2 worker processes, persistent,
    prefetch_factor 4, no pinned memory.
    """
    import h5py

    patches.write(_write_hdf5)

    @functools.cache  # In a worker: an open file does not outlive a fork.
    def open_arrays() -> tuple[Any, Any]:
        x, y = (h5py.File(patches.path(f"{name}.h5")) for name in "xy")
        return x["x"], y["y"]

    def read(row: int) -> tuple[np.ndarray, int]:
        images, labels = open_arrays()
        return images[row], int(labels[row, 0, 0, 0])

    return _load(Dataset(len(patches), read), patches)


def read_npy(patches: patch_set.PatchSet) -> patch_set.Batches:
    """.npy; a batch gathered at once by __getitems__; 2 worker processes,
    persistent, prefetch_factor 4, no pinned memory.
    """
    import torch

    images, labels = patches.images, patches.labels

    def read(rows: Sequence[int]) -> tuple[Any, Any]:
        return torch.from_numpy(images[rows]), torch.from_numpy(labels[rows])

    dataset = BatchDataset(len(patches), read)
    return _load(dataset, patches, collate_fn=tuple)


def _load(
    dataset: Dataset, patches: patch_set.PatchSet, **options: Any
) -> patch_set.Batches:
    """Yields shuffled batches by a DataLoader, an epoch after the other."""
    from torch.utils import data

    loader = data.DataLoader(
        dataset,
        patches.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
        prefetch_factor=4,
        **options,
    )
    while True:
        yield from loader
