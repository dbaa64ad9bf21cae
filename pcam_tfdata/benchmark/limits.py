"""What no input can pass: patches from memory to memory, without TensorFlow."""

from collections.abc import Iterator

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration
from pcam_tfdata.records import tfrecord
from pcam_tfdata.system import memory

GATHER = "limit: numpy gather"
_GIGABYTE = 1_000_000_000
_SHARE_OF_MEMORY = 0.8


def gather(options: configuration.Options) -> Iterator[int]:
    """Gathers shuffled batches from one array in memory, in a plain loop."""
    images = _load_images(options)
    for rows in shuffle_rows(len(images), options.batch_size):
        yield len(images[rows])


def shuffle_rows(num_patches: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yields the rows of batches, each epoch in another order, without end."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(num_patches)
        for start in range(0, num_patches - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def copy(options: configuration.Options) -> Iterator[int]:
    """Copies one batch to another place, over and over."""
    source = np.ones((options.batch_size, *schema.IMAGE_SHAPE), np.uint8)
    target = np.zeros_like(source)
    while True:
        np.copyto(target, source)
        yield options.batch_size


def check_memory(num_patches: int, num_copies: int) -> None:
    """Refuses more patches than memory has room for.

    Raises:
        ValueError: there are more.
    """
    needed = num_copies * num_patches * schema.IMAGE_BYTES
    available = memory.free_memory()
    if available is not None and needed > _SHARE_OF_MEMORY * available:
        raise ValueError(
            f"--records_dir: found {num_patches:,} patches, which would"
            f" take {needed / _GIGABYTE:.1f} GB of memory; {_SHARE_OF_MEMORY:.0%}"
            f" of the {available / _GIGABYTE:.1f} GB free is the most. Take fewer"
            " patches, as with fewer --splits."
        )


def _load_images(options: configuration.Options) -> np.ndarray:
    """Returns all patches: uint8 [num_patches, 96, 96, 3], in memory."""
    patches = options.select_patches()
    images = np.empty((patches.num_patches, *schema.IMAGE_SHAPE), np.uint8)
    for shard, start in zip(patches.shards, patches.starts, strict=False):
        mapped = shard.map()
        views = tfrecord.view_images(mapped, shard.layout)
        images[start : start + shard.num_records] = views
    return images
