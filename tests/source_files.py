"""Sources that tests write, and what comes out of a source."""

import gzip
import pathlib
from collections.abc import Mapping, Sequence

import h5py
import numpy as np
import pytest

from pcam_tfdata.records import records_folder, tfrecord

PREFIX = "camelyonpatch_level_2_split_"


def write_h5(folder, part, name, values) -> None:
    with h5py.File(folder / f"{PREFIX}{part}.h5", "w") as file:
        file.create_dataset(
            name, data=values.astype(np.uint8), chunks=True, compression="gzip"
        )


def pack(path: pathlib.Path) -> None:
    """Puts a gzipped file in the place of a file."""
    packed = pathlib.Path(f"{path}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def write_dataset(
    data_dir: pathlib.Path,
    name: str,
    splits: Mapping[str, Sequence[Mapping[str, object]]],
) -> pathlib.Path:
    """Prepares a TensorFlow dataset; returns its folder.

    Args:
        data_dir: Where datasets are.
        name: Its own.
        splits: Examples of each, which have some of the features below.
    """
    tfds = pytest.importorskip("tensorflow_datasets")
    shape = (96, 96, 3)
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=shape),
        "pixels": tfds.features.Tensor(
            shape=shape, dtype=np.uint8, encoding="bytes"
        ),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    names = {key for part in splits.values() for e in part for key in e}
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.2.3",
        data_dir=str(data_dir),
        features=tfds.features.FeaturesDict({n: features[n] for n in names}),
        split_datasets={n: enumerate(part) for n, part in splits.items()},
    )
    return data_dir / name / "1.2.3"


def read_split(records_dir, name):
    """Returns images, labels and tumor fractions in order."""
    shards = records_folder.open_folder(str(records_dir)).list_shards([name])
    layout = shards[0].layout
    found = [shard.map() for shard in shards]
    rows = np.concatenate(found)
    start = layout.tumor_fraction_offset
    fraction = np.ascontiguousarray(rows[:, start : start + 4])
    labels = np.where(shards[0].labeled, rows[:, layout.label_offset], -1)
    return (
        np.concatenate([tfrecord.view_images(part, layout) for part in found]),
        labels.astype(int),
        fraction.view("<f4")[:, 0],
    )
