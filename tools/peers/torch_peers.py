"""Peers on NumPy, on PyTorch's DataLoader, and FFCV."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pcam_tfdata import schema
from pcam_tfdata.benchmark import limits
from peers import patch_set


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set of as many items, of which a function reads those of rows."""

    size: int
    read: Callable[[Sequence[int]], Any]

    def __len__(self) -> int:
        return self.size

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

    def read(rows: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        images = [np.array(Image.open(patches.paths[row])) for row in rows]
        return [*zip(images, patches.labels[rows].tolist(), strict=True)]

    return _load(Dataset(len(patches), read), patches)


def read_npy(patches: patch_set.PatchSet) -> patch_set.Batches:
    """.npy; a batch gathered at once by __getitems__; 2 worker processes,
    persistent, prefetch_factor 4, no pinned memory.
    """
    import torch

    images, labels = patches.images, patches.labels

    def read(rows: Sequence[int]) -> tuple[Any, Any]:
        return torch.from_numpy(images[rows]), torch.from_numpy(labels[rows])

    return _load(Dataset(len(patches), read), patches, collate_fn=tuple)


def ffcv(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Beton of raw pixels; Loader, OrderOption.RANDOM, os_cache, 2 threads; batches
    are views of its buffers, valid until the next ones.
    """
    from ffcv import loader, transforms
    from ffcv.fields import decoders

    patches.write(_write_beton)
    batches = loader.Loader(
        patches.path("beton"),
        batch_size=patches.batch_size,
        num_workers=2,
        order=loader.OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={
            "image": [decoders.NDArrayDecoder(), transforms.ToTensor()],
            "label": [decoders.IntDecoder(), transforms.ToTensor()],
        },
    )
    while True:
        yield from batches


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


def _write_beton(patches: patch_set.PatchSet) -> None:
    """Writes a beton of raw pixels and labels."""
    from ffcv import fields, writer

    shape = tuple(schema.IMAGE_SHAPE)
    columns = {
        "image": fields.NDArrayField(np.dtype(np.uint8), shape),
        "label": fields.IntField(),
    }
    beton = writer.DatasetWriter(patches.path("beton"), columns, num_workers=1)
    # Of a map no patch is read before its turn.
    rows = zip(np.asarray(patches.images), patches.labels.tolist(), strict=True)
    beton.from_indexed_dataset([*rows])
