"""The patches that every peer gets, and a check of what it makes of them."""

import dataclasses
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration, conversion_rates
from pcam_tfdata.images import tiff
from pcam_tfdata.sources import listing

Batches = Iterator[tuple[Any, Any]]
_NUM_CHECKED = 4  # Batches.


@dataclasses.dataclass(frozen=True)
class PatchSet:
    """The labelled patches of a Kaggle folder, in the order of their CSV.

    Attributes:
        options: Name the folder, the same patches as records, and a batch.
        paths: Their TIFFs.
        labels: int64 [num_patches], 0 or 1.
        folder: Where the peer keeps its own format.
    """

    options: configuration.Options
    paths: Sequence[str]
    labels: np.ndarray
    folder: str

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def batch_size(self) -> int:
        """Patches of a batch."""
        return self.options.batch_size

    @property
    def images(self) -> np.ndarray:
        """uint8 [num_patches, 96, 96, 3], mapped from a file at each use."""
        return np.load(_images_path(self.options), mmap_mode="r")

    def path(self, name: str) -> str:
        """Returns where a file or folder of a peer's own format is."""
        return os.path.join(self.folder, name)

    def write(self, write: Callable[["PatchSet"], object]) -> None:
        """Has a peer's own format written, by a process of its own.

        What writing takes of memory is not the reader's.
        """
        context = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(1, context) as pool:
            pool.submit(write, self).result()


def consume(
    options: configuration.Options, read: Callable[[PatchSet], Batches]
) -> Iterator[int]:
    """Takes a batch of a peer at each `next`, and gives its size.

    Args:
        options: Which patches.
        read: Gives the batches.

    Raises:
        ValueError: a batch holds other patches or labels, or is not shuffled.
    """
    patches = _find_patches(options, tempfile.mkdtemp(dir=options.scratch_dir))
    batches = read(patches)
    num_checked = min(_NUM_CHECKED, len(patches) // patches.batch_size)
    row_of = {schema.hash_pixels(im): r for r, im in enumerate(patches.images)}
    for image, label in itertools.islice(batches, num_checked):
        image = np.asarray(image)
        if image.dtype == np.float32:
            image = np.rint(image * 255).astype(np.uint8)
        hashes = map(schema.hash_pixels, np.ascontiguousarray(image))
        rows = [row_of.get(pixels_hash, -1) for pixels_hash in hashes]
        labels = np.ravel(np.asarray(label))
        if (
            len(set(rows) - {-1}) < patches.batch_size
            or not np.array_equal(patches.labels[rows], labels)
            or np.all(np.diff(rows) == 1)
        ):
            raise ValueError(
                f"found a batch {image.dtype}{image.shape} of rows {rows[:9]},"
                f" expected {patches.batch_size} patches, each once, with their"
                " labels and not in the order of the files."
            )
    return (len(label) for _, label in batches)


def write_images(options: configuration.Options) -> None:
    """Writes the array from which peers write their formats.

    Raises:
        FileNotFoundError, ValueError: folder and records do not hold as many
            patches.
    """
    patches = _find_patches(options)
    if len(patches) != (found := options.select_patches().num_patches):
        raise ValueError(
            f"{options.records_dir}: found {found:,} labelled patches, expected"
            f" the {len(patches):,} of {options.input_dir}. Convert it again."
        )
    images = np.stack([tiff.read(path) for path in patches.paths])
    np.save(_images_path(options), images)


def _find_patches(options: configuration.Options, folder: str = "") -> PatchSet:
    listed, *_ = conversion_rates.list_splits(options.input_dir)
    paths = map(os.path.abspath, listing.list_paths(listed.images))
    return PatchSet(options, [*paths], listed.labels.astype(np.int64), folder)


def _images_path(options: configuration.Options) -> str:
    return os.path.join(options.scratch_dir, "images.npy")
