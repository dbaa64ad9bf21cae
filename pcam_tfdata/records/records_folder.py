"""A records folder, opened once: its manifest, its shards and its sidecar."""

import dataclasses
import functools
import hashlib
import os
import typing
from collections.abc import Iterator, Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.records import manifest, tfrecord
from pcam_tfdata.system import files

if typing.TYPE_CHECKING:
    import pandas  # Takes half a second: workers that read shards do without.

_BLOCK_ROWS = 1 << 16


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A shard, and where its records lie.

    Attributes:
        path: Its file.
        split: Name of its split.
        num_records: Patches in it.
        first_row: Sidecar's row of its first record.
        labeled: Whether its labels are 0 and 1; if not, all are -1.
    """

    path: str
    split: str
    num_records: int
    first_row: int
    labeled: bool

    @property
    def layout(self) -> tfrecord.Layout:
        """Where the parts of its records lie."""
        return tfrecord.layout(labeled=self.labeled)

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.num_records * self.layout.record_bytes

    @property
    def end_row(self) -> int:
        """The row after that of its last record."""
        return self.first_row + self.num_records

    def read_record(self, record: int) -> bytes:
        """Returns a record, framing included."""
        size = self.layout.record_bytes
        return files.read_bytes(self.path, record * size, size)

    def map(self) -> np.ndarray:
        """Returns its records, memory-mapped: uint8 [num_records, record_bytes].

        Raises:
            FileNotFoundError, ValueError: it is not there, of another size than
                its records, or on no disk.
        """
        if files.is_remote(self.path):
            raise ValueError(
                f"{self.path}: found a remote file, expected one on a disk,"
                " since its patches are wanted in any order. Copy the folder to"
                " a disk first."
            )
        self.check_size()
        shape = (self.num_records, self.layout.record_bytes)
        if not self.num_records:
            return np.zeros(shape, np.uint8)
        return np.memmap(self.path, np.uint8, mode="r").reshape(shape)

    def check(self) -> None:
        """Refuses a file of another size, or of damaged first or last record.

        Raises:
            FileNotFoundError, ValueError: it is such a file, or not there.
        """
        self.check_size()
        for record in {0, self.num_records - 1} if self.num_records else ():
            self.check_record(record, self.read_record(record))

    def check_size(self) -> None:
        """Refuses a file that does not hold its records.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: its size is not num_records x record_bytes.
        """
        num_bytes = files.size(self.path)
        if num_bytes is None:
            raise FileNotFoundError(
                f"{self.path}: not found, expected a shard of"
                f" {self.num_records:,} records. Convert again."
            )
        if num_bytes != self.num_bytes:
            raise ValueError(
                f"{self.path}: found {num_bytes:,} bytes, expected"
                f" {self.num_bytes:,} ({self.num_records:,} records of"
                f" {self.layout.record_bytes:,}). Convert again."
            )

    def check_record(self, number: int, record: bytes | np.ndarray) -> None:
        """Refuses a record whose framing is not right.

        Args:
            number: Its number in the shard, for the message.
            record: Its bytes, with framing.

        Raises:
            DamagedRecordError: it is not.
        """
        if fault := tfrecord.find_frame_fault(record, self.layout):
            raise tfrecord.DamagedRecordError(self.describe(number, fault))

    def describe(self, number: int, fault: str) -> str:
        """Returns the line that says what is wrong with a record."""
        return (
            f"{self.path}: record {number}"
            f" (byte {number * self.layout.record_bytes:,}): {fault}. Copy the"
            " file again or convert again."
        )


@dataclasses.dataclass(frozen=True)
class Selection:
    """Patches of shards, one shard after the other."""

    shards: tuple[ShardFile, ...]

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """int64 [num_shards + 1]: patches before each shard, and in all."""
        counts = [0, *(shard.num_records for shard in self.shards)]
        return np.cumsum(counts, dtype=np.int64)

    @property
    def num_patches(self) -> int:
        """How many there are."""
        return int(self.starts[-1])

    def locate(
        self, patches: np.ndarray | int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shard and the record within it of patches: int64 [n]."""
        shard = np.searchsorted(self.starts, patches, "right") - 1
        return shard, patches - self.starts[shard]

    def read_images(self, patches: np.ndarray) -> np.ndarray:
        """Returns some patches, int64 [n], as uint8 [n, 96, 96, 3].

        Raises:
            FileNotFoundError, ValueError: as in `ShardFile.map`.
        """
        shards, records = self.locate(patches)
        images = np.empty((len(patches), *schema.IMAGE_SHAPE), np.uint8)
        for number in np.unique(shards):
            shard = self.shards[number]
            chosen = shards == number
            views = tfrecord.view_images(shard.map(), shard.layout)
            images[chosen] = views[records[chosen]]
        return images


@dataclasses.dataclass(frozen=True)
class RecordsFolder:
    """A records folder whose manifest was read and checked.

    The shards and the sidecar are looked at when they are asked for.

    Attributes:
        path: As the user named it.
        content: What the manifest says.
        manifest_sha256: SHA-256 (hex) of the manifest, which names the data.
    """

    path: str
    content: manifest.Manifest
    manifest_sha256: str

    @property
    def num_patches(self) -> int:
        """Patches of all splits."""
        return sum(split.num_records for split in self.content.splits)

    @property
    def sidecar_path(self) -> str:
        """Where the sidecar is."""
        return os.path.join(self.path, manifest.SIDECAR_FILE)

    def list_shards(
        self, splits: Sequence[str] | None = None
    ) -> list[ShardFile]:
        """Returns the shards of some splits, None for all; no file is opened.

        Raises:
            ValueError: a split is unknown or repeated, or there is none.
        """
        if splits is None:
            splits = [split.name for split in self.content.splits]
        shards = []
        for split in self.content.select(splits):
            row = self.content.first_row(split.name)
            for shard in split.shards:
                path = os.path.join(self.path, shard.name)
                count = shard.num_records
                shards.append(
                    ShardFile(path, split.name, count, row, split.labeled)
                )
                row += count
        return shards

    def select_patches(self, splits: Sequence[str]) -> Selection:
        """Returns the patches of some splits, whose shards are looked at.

        Raises:
            FileNotFoundError: a shard is not there.
            ValueError: a split is unknown, or a shard is of another size than
                its records, or its first or last record is damaged.
        """
        shards = self.list_shards(splits)
        for shard in shards:
            shard.check()
        return Selection(tuple(s for s in shards if s.num_records))

    def count_patches(self, splits: Sequence[str]) -> int:
        """Returns how many patches some splits have."""
        return sum(split.num_records for split in self.content.select(splits))

    def count_labels(self, splits: Sequence[str]) -> tuple[int, int]:
        """Returns how many patches of some splits have label 0, and label 1."""
        counts = [split.class_counts for split in self.content.select(splits)]
        negative = sum(count.get("0", 0) for count in counts)
        return negative, sum(count.get("1", 0) for count in counts)

    def read_tumor_fractions(self, splits: Sequence[str]) -> np.ndarray:
        """Returns the share of tumor in the centre by row: float32.

        NaN where it is not known, and in other splits.

        Raises:
            FileNotFoundError, ValueError: as in `ShardFile.map`.
        """
        fractions = np.full(self.num_patches, np.nan, np.float32)
        for shard in self.list_shards(splits):
            rows = slice(shard.first_row, shard.end_row)
            fractions[rows] = tfrecord.read_tumor_fractions(
                shard.map(), shard.layout
            )
        return fractions

    def read_sidecar(self, columns: Sequence[str]) -> "pandas.DataFrame":
        """Returns some columns of the sidecar, as text; row k is record k.

        Raises:
            FileNotFoundError, ValueError: as in `iterate_sidecar`.
        """
        import pandas

        return pandas.concat(self.iterate_sidecar(columns))

    def iterate_sidecar(
        self, columns: Sequence[str]
    ) -> Iterator["pandas.DataFrame"]:
        """Yields some columns of the sidecar in blocks, as text, by row.

        Raises:
            FileNotFoundError, ValueError: the sidecar is not there, not the one
                that was written with these records, or lacks a column.
        """
        import pandas

        with files.open_file(self._checked_sidecar_path, "rb") as file:
            try:
                blocks = pandas.read_csv(
                    file,
                    usecols=list(columns),
                    dtype=str,
                    na_filter=False,
                    lineterminator="\n",
                    chunksize=_BLOCK_ROWS,
                )
            except ValueError as error:
                raise ValueError(
                    f"{self.sidecar_path}: found other columns, expected"
                    f" {', '.join(columns)}. Convert again with this version."
                ) from error
            yield from blocks

    @functools.cached_property
    def _checked_sidecar_path(self) -> str:
        """Where the sidecar is, once it is known as the manifest's."""
        found = manifest.hash_file(self.sidecar_path)
        expected = self.content.file_sha256.get(manifest.SIDECAR_FILE)
        if found != expected:
            raise ValueError(
                f"{self.sidecar_path}: found SHA-256 {found}, expected"
                f" {expected}, that of the manifest: its rows may not be those"
                " of the records. Run pcam verify."
            )
        return self.sidecar_path


def open_folder(records_dir: str) -> RecordsFolder:
    """Opens a records folder: reads its manifest, once, and checks it.

    Args:
        records_dir: The folder, or a URL of it.

    Raises:
        FileNotFoundError: it is not a finished records folder.
        ValueError: its manifest is damaged or of another format.
        RuntimeError: it is remote, and a package is missing.
    """
    path = os.path.join(records_dir, manifest.MANIFEST_FILE)
    if files.size(path) is None:
        raise FileNotFoundError(
            f"{path}: not found, expected a records folder made by"
            " `pcam convert_to_tfrecords`. Check the path."
        )
    with files.open_file(path, "rb") as file:
        data = file.read()
    sha256 = hashlib.sha256(data).hexdigest()
    return RecordsFolder(records_dir, manifest.parse(data, path), sha256)
