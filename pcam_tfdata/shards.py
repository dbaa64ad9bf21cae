"""One shard: patches in, one file out. Runs in a worker, without TensorFlow."""

import csv
import dataclasses
import hashlib
import os
from collections.abc import Iterator

import numpy as np

from pcam_tfdata import faults, journal, manifest, records, schema, workers
from pcam_tfdata.sources import listing

_COUNT_EVERY = 64


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
        path: Where to; its sidecar part goes to `path`.csv.
        split: Name of the split.
        patches: In the order of the records.
        ids: bytes [num_patches]: the SHA-1 that the pixels of each patch must
            have, in hex; None where any will do.
    """

    path: str
    split: str
    patches: listing.Listing
    ids: np.ndarray | None

    def fingerprint(self) -> str:
        """Returns what the shard depends on, as a hash."""
        patches = self.patches
        digest = hashlib.sha256(
            f"{self.split} {patches.images.identify()}".encode()
        )
        for column in (
            self.ids,
            patches.names,
            patches.labels,
            patches.slides,
            patches.coordinates,
        ):
            kind = "" if column is None else f"{column.dtype} {column.shape}"
            digest.update(kind.encode())
            digest.update(b"" if column is None else column.tobytes())
        return digest.hexdigest()


def write_shard(task: ShardTask) -> journal.ShardResult:
    """Writes a shard and its part of the sidecar; bad patches are left out.

    A shard that an earlier job finished is left as it is.

    Raises:
        OSError: the disk is full, or a file cannot be read.
    """
    fingerprint = task.fingerprint()
    finished = journal.read(task.path, fingerprint)
    if finished is not None:
        workers.count_done(len(task.patches))
        return finished
    result = _write(task)
    journal.write(task.path, fingerprint, result)
    return result


def hash_patches(
    patches: listing.Listing,
) -> tuple[np.ndarray, list[faults.Fault]]:
    """Returns the SHA-1 of the pixels of each patch, and the bad patches.

    Returns:
        bytes [num_patches], hex; empty for a bad patch.
    """
    hashes = np.zeros(len(patches), f"S{schema.ID_BYTES}")
    found = []
    for row, pixels in enumerate(patches.images.read()):
        if pixels.image is None:
            found.append(faults.Fault(_name(patches, row), pixels.reason))
        else:
            hashes[row] = schema.hash_pixels(pixels.image)
    workers.count_done(len(patches))
    return hashes, found


def mismatch(patches: listing.Listing, row: int, found: str) -> str:
    """Returns the line that says that a name is not the hash of the pixels."""
    return (
        f"{patches.images.locate(row)}: found pixels with SHA-1 {found},"
        f" expected the id {_name(patches, row)}. Fetch the file again, or pass"
        " --check_ids=never for ids that are no hashes."
    )


def _write(task: ShardTask) -> journal.ShardResult:
    tally = _Tally()
    found: list[faults.Fault] = []
    with (
        journal.open_part(task.path, "wb", buffering=1 << 20) as file,
        journal.open_part(
            f"{task.path}.csv", "w", newline="", encoding="utf-8"
        ) as sidecar,
    ):
        rows = csv.writer(sidecar, lineterminator="\n")
        for row, patch_id, pixels in _read(task, found):
            label = int(task.patches.labels[row])
            record = records.encode(
                patch_id, pixels.image, label, pixels.tumor_fraction
            )
            file.write(record)
            tally.add(record, pixels.image, label)
            rows.writerow(_sidecar_row(task, row, patch_id))
    shard = manifest.Shard(
        name=os.path.basename(task.path),
        num_records=int(tally.label_counts.sum()),
        num_bytes=tally.num_bytes,
        sha256=tally.digest.hexdigest(),
    )
    return journal.ShardResult(
        shard, tally.label_counts, tally.channel_sums, found
    )


class _Tally:
    """What is summed up over the records of a shard."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.num_bytes = 0
        self.label_counts = np.zeros(3, np.int64)
        self.channel_sums = np.zeros((2, schema.NUM_CHANNELS), np.int64)

    def add(self, record: bytes, image: np.ndarray, label: int) -> None:
        """Adds a record."""
        self.digest.update(record)
        self.num_bytes += len(record)
        self.label_counts[label] += 1
        self.channel_sums += _sum_channels(image)


def _read(
    task: ShardTask, found: list[faults.Fault]
) -> Iterator[tuple[int, str, listing.Pixels]]:
    """Yields row, id and pixels of the patches that can be used."""
    for row, pixels in enumerate(task.patches.images.read()):
        if row % _COUNT_EVERY == _COUNT_EVERY - 1:
            workers.count_done(_COUNT_EVERY)
        reason = pixels.reason
        if pixels.image is not None:
            patch_id = schema.hash_pixels(pixels.image)
            reason = _find_change(task, row, patch_id)
        if reason:
            found.append(faults.Fault(_name(task.patches, row), reason))
        else:
            yield row, patch_id, pixels
    workers.count_done(len(task.patches) % _COUNT_EVERY)


def _find_change(task: ShardTask, row: int, found: str) -> str:
    """Returns what is wrong with the id of a patch; nothing if it is right."""
    if task.ids is None or found == (expected := task.ids[row].decode()):
        return ""
    if _name(task.patches, row) == expected:
        return mismatch(task.patches, row, found)
    return (
        f"{task.patches.images.locate(row)}: found pixels with SHA-1 {found},"
        f" expected {expected}, as when it was first read. Let nothing write"
        " there, and run again."
    )


def _name(patches: listing.Listing, row: int) -> str:
    return patches.names[row].decode()


def _sidecar_row(
    task: ShardTask, row: int, patch_id: str
) -> tuple[object, ...]:
    patches = task.patches
    slide = b"" if patches.slides is None else patches.slides[row]
    x, y = ("", "")
    if patches.coordinates is not None:
        x, y = patches.coordinates[row]
    return (
        task.split,
        os.path.basename(task.path),
        patch_id,
        patches.labels[row],
        slide.decode(),
        _name(patches, row),
        x,
        y,
    )


def _sum_channels(image: np.ndarray) -> np.ndarray:
    # Down the rows first: 288 contiguous columns add up far faster than 3. The
    # square of a uint8 fits a uint16, the sums of a patch a uint32.
    rows = image.reshape(schema.PATCH_SIZE, -1)
    squares = np.multiply(rows, rows, dtype=np.uint16)
    sums = [rows.sum(0, np.uint32), squares.sum(0, np.uint32)]
    per_column = np.stack(sums).reshape(2, -1, schema.NUM_CHANNELS)
    return per_column.sum(1, dtype=np.int64)
