"""What no input can pass: patches from memory to memory, without TensorFlow."""

from collections.abc import Iterator

import numpy as np

from pcam_tfdata.benchmark import configuration

GATHER = "limit: numpy gather"


def gather(options: configuration.Options) -> Iterator[int]:
    """Gathers shuffled batches from one array in memory, in a plain loop."""
    patches = options.select_patches()
    images = patches.read_images(np.arange(patches.num_patches))
    for rows in shuffle_rows(len(images), options.batch_size):
        yield len(images[rows])


def shuffle_rows(num_patches: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yields the rows of batches, each epoch in another order, without end."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(num_patches)
        for start in range(0, num_patches - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
