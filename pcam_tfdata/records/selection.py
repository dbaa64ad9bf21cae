"""The shards of some splits: which patch is which record of which file."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.records import manifest, tfrecord
from pcam_tfdata.system import files


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A shard with records.

    Attributes:
        path: Its file.
        split: Name of its split.
        num_records: Patches in it.
        first_row: Sidecar's row of its first record.
        layout: Of its records.
        labeled: Whether they have labels; if not, these are -1.
    """

    path: str
    split: str
    num_records: int
    first_row: int
    layout: tfrecord.Layout
    labeled: bool

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.num_records * self.layout.record_bytes

    def read_record(self, record: int) -> bytes:
        """Returns a record, framing included."""
        size = self.layout.record_bytes
        return files.read_bytes(self.path, record * size, size)


@dataclasses.dataclass(frozen=True)
class Selection:
    """The patches of some splits: those of their shards, one after the other.

    Attributes:
        shards: In the order of the splits.
        starts: int64 [num_shards + 1]: patches before each shard, and in all.
    """

    shards: tuple[ShardFile, ...]
    starts: np.ndarray

    @property
    def num_patches(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(shard.num_bytes for shard in self.shards)

    def locate(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shard and the record within it of patches: int64 [n]."""
        shard = np.searchsorted(self.starts, patches, "right") - 1
        return shard, patches - self.starts[shard]


def select(records_dir: str, splits: Sequence[str]) -> Selection:
    """Returns the patches of some splits.

    Raises:
        FileNotFoundError: there are no records, or a shard is not there.
        ValueError: a split is unknown, or a shard is of another size than its
            records, or its first or last record is damaged; or TensorFlow
            cannot read where they are.
    """
    _refuse_unreadable(records_dir)
    content = manifest.read(records_dir)
    shards = []
    for split in content.select(splits):
        row = content.first_row(split.name)
        for shard in split.shards:
            path = os.path.join(records_dir, shard.name)
            shards.append(
                ShardFile(
                    path, split.name, shard.num_records, row, split.layout,
                    split.labeled,
                )
            )  # fmt: skip
            row += shard.num_records
    for shard in shards:
        _check(shard)
    shards = [shard for shard in shards if shard.num_records]
    starts = np.cumsum([0, *(shard.num_records for shard in shards)])
    return Selection(tuple(shards), starts.astype(np.int64))


def _refuse_unreadable(records_dir: str) -> None:
    """Refuses a store that fsspec opens, and TensorFlow, which reads, not."""
    if not files.is_known_to_tensorflow(records_dir):
        scheme = records_dir.partition("://")[0]
        raise ValueError(
            f"{records_dir}: found records in a store, expected a folder on a"
            f" disk: TensorFlow reads no {scheme}:// here. Copy the records to"
            " a disk."
        )


def _check(shard: ShardFile) -> None:
    found = files.size(shard.path)
    tfrecord.check_size(shard.path, found, shard.num_records, shard.layout)
    for record in {0, shard.num_records - 1} if shard.num_records else ():
        tfrecord.check_frame(
            shard.read_record(record), shard.layout, shard.path, record
        )
