"""Takes batches, after a check that they are what they should be."""

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from pcam_tfdata import schema
from peers import patch_set

_NUM_CHECKED = 4  # Batches.

Batches = Iterator[tuple[Any, Any]]


def find_function(module: str, name: str) -> Any:
    """Returns a function of a module of this folder.

    By name, because the main process need not have the packages of the module.
    """
    return getattr(importlib.import_module(f"peers.{module}"), name)


def consume(
    module: str, function: str, patches: patch_set.PatchSet, whole_epoch: bool
) -> Iterator[int]:
    """Takes a batch at each `next`, and gives its size.

    Args:
        module: Module of this folder, and
        function: function of it: from patches to endless (image, label), where
            image is uint8, or float32 in [0, 1], [B, 96, 96, 3].
        patches: The patches.
        whole_epoch: Whether the first epoch is drawn before anything is timed,
            because it fills a cache.

    Raises:
        ValueError: a batch holds other patches or labels, or is not shuffled.
    """
    batches = find_function(module, function)(patches)
    num_batches = patches.num_patches // patches.batch_size
    num_checked = min(_NUM_CHECKED, num_batches)
    for image, label in itertools.islice(batches, num_checked):
        _check(np.asarray(image), np.asarray(label), patches)
    if whole_epoch:
        for _ in itertools.islice(batches, num_batches + 1):
            pass
    return _count(batches)


def write(
    module: str, function: str, patches: patch_set.PatchSet
) -> Iterator[int]:
    """Writes the format of a peer; then there is nothing to time."""
    find_function(module, function)(patches)
    return iter(())


def _count(batches: Batches) -> Iterator[int]:
    for _, label in batches:
        yield len(label)


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
    places = {patch_id: place for place, patch_id in enumerate(patches.ids)}
    image = np.ascontiguousarray(image)
    found = [places.get(schema.hash_pixels(each)) for each in image]
    if None in found:
        raise ValueError("found pixels of no patch, expected the patches' own.")
    if len(set(found)) < len(found):
        raise ValueError("found a patch twice in a batch, expected it once.")
    if not np.array_equal(patches.load_labels()[found], np.ravel(label)):
        raise ValueError("found labels that are not those of the patches.")
    if np.all(np.diff(found) == 1):
        raise ValueError("found patches in the order of the files.")
