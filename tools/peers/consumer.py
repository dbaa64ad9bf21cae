"""Takes the batches of a peer, after a check that they are what they should be."""

import collections
import itertools
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration
from peers import patch_set

_NUM_CHECKED = 4  # Batches.


def consume(
    options: configuration.Options,
    read: Callable[[patch_set.PatchSet], patch_set.Batches],
    write: Callable[[patch_set.PatchSet], None] | None = None,
    whole_epoch: bool = False,
) -> Iterator[int]:
    """Takes a batch at each `next`, and gives its size.

    Args:
        options: Which patches.
        read: Gives the batches.
        write: Writes the format that is read, if it is one of the peer's own.
        whole_epoch: An epoch fills a cache, and is drawn before it is timed.

    Raises:
        ValueError: a batch holds other patches or labels, or is not shuffled.
    """
    folder = tempfile.mkdtemp(dir=options.scratch_dir)
    patches = patch_set.find_patches(options, folder)
    if write:
        # In a process of its own: what it takes of memory is not the reader's.
        context = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(1, context) as pool:
            pool.submit(write, patches).result()
    batches = read(patches)
    num_batches = len(patches) // patches.batch_size
    for image, label in itertools.islice(
        batches, min(_NUM_CHECKED, num_batches)
    ):
        _check(np.asarray(image), np.asarray(label), patches)
    if whole_epoch:
        collections.deque(itertools.islice(batches, num_batches + 1), maxlen=0)
    return (len(label) for _, label in batches)


def _check(
    image: np.ndarray, label: np.ndarray, patches: patch_set.PatchSet
) -> None:
    if image.dtype == np.float32:
        image = np.rint(image * 255).astype(np.uint8)
    expected = (patches.batch_size, *schema.IMAGE_SHAPE)
    if image.dtype != np.uint8 or image.shape != expected:
        raise ValueError(
            f"found a batch {image.dtype}{image.shape}, expected"
            f" uint8{expected}."
        )
    row_of = {patch_id: row for row, patch_id in enumerate(patches.ids)}
    hashes = map(schema.hash_pixels, np.ascontiguousarray(image))
    rows = [row_of.get(patch_id, -1) for patch_id in hashes]
    if -1 in rows:
        raise ValueError("found pixels of no patch, expected the patches' own.")
    if len(set(rows)) < len(rows):
        raise ValueError("found a patch twice in a batch, expected it once.")
    if not np.array_equal(patches.labels[rows], np.ravel(label)):
        raise ValueError("found labels that are not those of the patches.")
    if np.all(np.diff(rows) == 1):
        raise ValueError("found patches in the order of the files.")
