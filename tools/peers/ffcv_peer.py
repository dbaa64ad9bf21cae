"""FFCV: a file of raw pixels, and a loader compiled by Numba."""

import numpy as np
from ffcv import fields, loader, transforms, writer
from ffcv.fields import decoders

from pcam_tfdata import schema
from peers import consumer, patch_set

_NUM_WORKERS = 2


def write_ffcv(patches: patch_set.PatchSet) -> None:
    """Writes a beton of raw pixels and labels."""
    columns = {
        "image": fields.NDArrayField(
            np.dtype(np.uint8), tuple(schema.IMAGE_SHAPE)
        ),
        "label": fields.IntField(),
    }
    made = writer.DatasetWriter(
        patches.place("patches.beton"), columns, num_workers=1
    )
    made.from_indexed_dataset(_Pairs(patches))


def read_ffcv(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads the beton in random order; batches are views of its buffers."""
    made = loader.Loader(
        patches.place("patches.beton"),
        batch_size=patches.batch_size,
        num_workers=_NUM_WORKERS,
        order=loader.OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={
            "image": [decoders.NDArrayDecoder(), transforms.ToTensor()],
            "label": [decoders.IntDecoder(), transforms.ToTensor()],
        },
    )
    while True:
        yield from made


class _Pairs:
    def __init__(self, patches: patch_set.PatchSet) -> None:
        self._images, self._labels = patches.map_images(), patches.labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        return np.array(self._images[place]), self._labels[place]
