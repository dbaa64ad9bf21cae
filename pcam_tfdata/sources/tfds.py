"""A prepared TensorFlow dataset of patches, such as `patch_camelyon`.

TensorFlow reads it, so it is imported here, and in the workers.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, files, name_arrays, progress


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a split of a prepared dataset.

    Attributes:
        folder: The folder of the dataset, with its dataset_info.json.
        split: Name of the split.
        rows: int64 [num_patches].
        image: Name of the feature that holds the pixels.
    """

    folder: str
    split: str
    rows: np.ndarray
    image: str

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray | slice) -> "Rows":
        """See `listing.Images.take`."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def locate(self, row: int) -> str:
        """Returns the folder, split and row of a patch."""
        return f"{self.folder}: {self.split}, row {self.rows[row]}"

    def identify(self, *, are_hashed: bool) -> str:
        """Returns name and version of the dataset, size and time of files."""
        info = _open(self.folder).info
        paths = map(os.fspath, info.splits[self.split].filepaths)
        return " ".join([info.full_name, self.split, *map(files.stamp, paths)])

    def read(self) -> Iterator[listing.Pixels]:
        """See `listing.Images.read`; rows that follow each other at a time."""
        breaks = np.flatnonzero(np.diff(self.rows) != 1) + 1
        for run in np.split(self.rows, breaks):
            if len(run):
                part = f"{self.split}[{run[0]}:{run[-1] + 1}]"
                for example in _read(self.folder, part, (self.image,)):
                    image = np.ascontiguousarray(example[self.image])
                    yield listing.Pixels(image)


def list_patches(
    options: listing.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns the splits of a prepared dataset, in its order.

    Names are those of its text feature `id`, if it has one of plain names, each
    once, else SPLIT_ROW.

    Raises:
        FileNotFoundError, ValueError: there is none, or none of patches, or
            labels are there for some alone.
        ModuleNotFoundError: tensorflow_datasets is not installed.
    """
    info = _open(options.input_dir).info
    listings = [
        _list_split(options.input_dir, split, info.splits[split].num_examples)
        for split in sorted(info.splits)
        if info.splits[split].num_examples
    ]
    return listings, []


def _list_split(folder: str, split: str, num_patches: int) -> listing.Listing:
    image, label, has_ids = _find_features(folder)
    wanted = [label] * (label is not None) + ["id"] * has_ids
    examples = []
    with progress.Progress(num_patches, f"list {split}") as bar:
        for example in _read(folder, split, wanted) if wanted else ():
            examples.append(example)
            bar.advance_to(len(examples))
    labels = np.full(num_patches, schema.UNLABELED)
    if label is not None:
        labels = np.array([example[label] for example in examples])
        _check_labels(f"{folder}: {split}", labels)
    # What is no UTF-8 becomes characters that do not print.
    names = [
        e["id"].decode(errors="surrogateescape") for e in examples if has_ids
    ]
    if len(set(filter(name_arrays.is_plain, names))) != num_patches:
        names = [f"{split}_{row}" for row in range(num_patches)]
    return listing.Listing(
        split=split,
        labels=labels.astype(np.int8),
        names=name_arrays.to_array(names),
        images=Rows(folder, split, np.arange(num_patches), image),
    )


def _check_labels(where: str, labels: np.ndarray) -> None:
    is_label = np.isin(labels, (schema.NEGATIVE, schema.POSITIVE))
    if is_label.all() or (labels == schema.UNLABELED).all():
        return
    row = int(is_label.argmin())
    raise ValueError(
        f"{where}, row {row}: found label {labels[row]}, expected 0 or 1, or"
        f" {schema.UNLABELED} in each row of the split. Prepare the dataset"
        " with labels, or put those without one into a split of their own."
    )


@functools.cache
def _open(folder: str) -> Any:
    tfds = _import()
    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # It raises anything on a folder without one.
        raise FileNotFoundError(
            f"{folder}: found no prepared dataset"
            f" ({faults.one_line(error, 200)}), expected the folder of"
            " one version, with dataset_info.json. Check --input_dir."
        ) from error


def _import() -> ModuleType:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")  # Its workers share the machine.
    return tfds


def _find_features(folder: str) -> tuple[str, str | None, bool]:
    """Returns the features of pixels and of labels, and whether one has ids."""
    kinds = _import().features
    features = dict(_open(folder).info.features.items())
    images = [
        name
        for name, feature in features.items()
        if tuple(feature.shape or ()) == schema.IMAGE_SHAPE
        and feature.np_dtype == np.uint8
    ]
    labels = [
        name
        for name, feature in features.items()
        if isinstance(feature, kinds.ClassLabel)
        and feature.num_classes == len(schema.CLASS_NAMES)
    ]
    if len(images) != 1 or len(labels) > 1:
        raise ValueError(
            f"{folder}: found {len(images)} features of uint8"
            f" {schema.IMAGE_SHAPE} and {len(labels)} of two classes, expected"
            " one of each. Choose another dataset."
        )
    has_ids = isinstance(features.get("id"), kinds.Text)
    return images[0], labels[0] if labels else None, has_ids


def _read(folder: str, split: str, names: Any) -> Iterator[dict[str, Any]]:
    """Yields some features of the examples of a split, in their order."""
    tfds = _import()
    ds = _open(folder).as_dataset(
        split=split,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(names, True)),
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return iter(tfds.as_numpy(ds))
