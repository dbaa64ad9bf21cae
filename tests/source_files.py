"""Official PCam files that tests write, and what comes out of a source."""

import gzip
import pathlib

import h5py
import numpy as np

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
