"""Peers that are data sets for PyTorch's DataLoader."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils import data as torch_data

from peers import consumer, patch_set

NUM_WORKERS = 2
PREFETCH_FACTOR = 4
_Item = tuple[torch.Tensor, int]


def read_tiffs(patches: patch_set.PatchSet) -> consumer.Batches:
    """Decodes TIFFs with Pillow, one by one."""
    return _load(_Tiffs(patches), patches.batch_size)


def write_hdf5(patches: patch_set.PatchSet) -> None:
    """Writes x and y, named and shaped as PatchCamelyon's files have them."""
    import h5py

    labels = patches.load_labels().reshape(-1, 1, 1, 1)
    for name, array in (("x", patches.map_images()), ("y", labels)):
        with h5py.File(patches.place(f"{name}.h5"), "w") as file:
            file.create_dataset(name, data=array)


def read_hdf5(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads HDF5 as torchvision's PCAM does: opens the files for each patch."""
    return _load(_Hdf5(patches), patches.batch_size)


def read_open_hdf5(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads HDF5 from files that each worker keeps open."""
    return _load(_OpenHdf5(patches), patches.batch_size)


def read_npy(patches: patch_set.PatchSet) -> consumer.Batches:
    """Gathers whole batches from a mapped .npy in the workers."""
    return _load(_Npy(patches), patches.batch_size, collate_fn=_keep)


class _Tiffs(torch_data.Dataset):
    def __init__(self, patches: patch_set.PatchSet) -> None:
        self._paths, self._labels = patches.paths, patches.labels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, place: int) -> _Item:
        with Image.open(self._paths[place]) as image:
            pixels = np.array(image)
        return torch.from_numpy(pixels), self._labels[place]


class _Hdf5(torch_data.Dataset):
    def __init__(self, patches: patch_set.PatchSet) -> None:
        import h5py

        self._h5py = h5py
        self._patches = patches

    def __len__(self) -> int:
        return self._patches.num_patches

    def __getitem__(self, place: int) -> _Item:
        with self._h5py.File(self._patches.place("x.h5")) as file:
            image = Image.fromarray(file["x"][place]).convert("RGB")
        with self._h5py.File(self._patches.place("y.h5")) as file:
            label = int(file["y"][place, 0, 0, 0])
        return torch.from_numpy(np.array(image)), label


class _OpenHdf5(torch_data.Dataset):
    def __init__(self, patches: patch_set.PatchSet) -> None:
        self._patches = patches

    def __len__(self) -> int:
        return self._patches.num_patches

    @functools.cached_property
    def _arrays(self) -> tuple[object, object]:
        # In a worker: an open file does not outlive a fork.
        import h5py

        x, y = (h5py.File(self._patches.place(f"{n}.h5")) for n in "xy")
        return x["x"], y["y"]

    def __getitem__(self, place: int) -> _Item:
        images, labels = self._arrays
        return torch.from_numpy(images[place]), int(labels[place, 0, 0, 0])


class _Npy(torch_data.Dataset):
    def __init__(self, patches: patch_set.PatchSet) -> None:
        self._patches = patches
        self._images = patches.map_images()
        self._labels = patches.load_labels()

    def __len__(self) -> int:
        return self._patches.num_patches

    def __getitems__(
        self, places: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.from_numpy(self._images[places])
        return image, torch.from_numpy(self._labels[places])


def _keep(batch: object) -> object:
    return batch


def _load(
    dataset: torch_data.Dataset, batch_size: int, **options
) -> consumer.Batches:
    loader = torch_data.DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=NUM_WORKERS,
        persistent_workers=True,
        prefetch_factor=PREFETCH_FACTOR,
        **options,
    )
    while True:
        yield from loader
