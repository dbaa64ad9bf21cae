"""What no input can pass: patches from memory to memory, without TensorFlow."""

from collections.abc import Iterator

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import memory

GATHER = "limit: numpy gather"
_GIGABYTE = 1_000_000_000
_SHARE_OF_MEMORY = 0.8


def gather(data: configuration.Data) -> Iterator[int]:
    """Gathers shuffled batches from one array in memory, in a plain loop."""
    array = load_images(data)
    rng = np.random.default_rng(0)
    last_start = data.num_patches - data.batch_size
    while True:
        order = rng.permutation(data.num_patches)
        for start in range(0, last_start + 1, data.batch_size):
            batch = array[order[start : start + data.batch_size]]
            yield len(batch)


def copy(batch_size: int) -> Iterator[int]:
    """Copies one batch to another place, over and over."""
    source = np.ones((batch_size, *schema.IMAGE_SHAPE), np.uint8)
    target = np.zeros_like(source)
    while True:
        np.copyto(target, source)
        yield batch_size


def check_memory(data: configuration.Data, num_copies: int = 1) -> None:
    """Refuses more patches than memory has room for.

    Raises:
        ValueError: there are more.
    """
    needed = num_copies * data.num_patches * schema.IMAGE_BYTES
    available = memory.free_memory()
    if available is not None and needed > _SHARE_OF_MEMORY * available:
        raise ValueError(
            f"--records_dir: found {data.num_patches:,} patches, which would"
            f" take {needed / _GIGABYTE:.1f} GB of memory; {_SHARE_OF_MEMORY:.0%}"
            f" of the {available / _GIGABYTE:.1f} GB free is the most. Take fewer"
            " patches, as with fewer --splits."
        )


def load_images(data: configuration.Data) -> np.ndarray:
    """Returns all patches: uint8 [num_patches, 96, 96, 3], in memory."""
    array = np.empty((data.num_patches, *schema.IMAGE_SHAPE), np.uint8)
    start = 0
    records = records_folder.open_folder(data.records_dir)
    for shard in records.list_shards(data.splits):
        mapped = tfrecord.map_shard(shard.path, shard.num_records, shard.layout)
        end = start + shard.num_records
        array[start:end] = tfrecord.view_images(mapped, shard.layout)
        start = end
    return array
