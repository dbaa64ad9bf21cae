"""The project's own ways in, and the limit that a mapped array sets."""

import numpy as np

from peers import consumer, patch_set


def mmap(patches: patch_set.PatchSet) -> consumer.Batches:
    """Returns the batches of --input=mmap."""
    return _train_batches(patches, "mmap")


def stream(patches: patch_set.PatchSet) -> consumer.Batches:
    """Returns the batches of --input=stream."""
    return _train_batches(patches, "stream")


def gather_npy(patches: patch_set.PatchSet) -> consumer.Batches:
    """Gathers from a mapped .npy in a plain loop: nothing overlaps a step."""
    images, labels = patches.map_images(), patches.load_labels()
    rng = np.random.default_rng(0)
    last_start = patches.num_patches - patches.batch_size
    while True:
        order = rng.permutation(patches.num_patches)
        for start in range(0, last_start + 1, patches.batch_size):
            places = order[start : start + patches.batch_size]
            yield images[places], labels[places]


def _train_batches(patches: patch_set.PatchSet, input: str) -> consumer.Batches:
    from pcam_tfdata.benchmark import feeds

    feeds.hide_gpus()
    opened = feeds.open_patches(patches.data, input)
    for batch in feeds.train_batches(patches.data, opened):
        yield batch["image"], batch["label"]
