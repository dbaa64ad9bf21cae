"""One shard: patches in, one file out. Runs in a worker, without TensorFlow."""

import csv
import dataclasses
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import (
    faults,
    manifest,
    records,
    schema,
    tiff,
    workers,
)
from pcam_tfdata.sources import listing

_COUNT_EVERY = 64
_NOT_KNOWN = float("nan")


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
        path: Where to; its sidecar part goes to `path`.csv.
        split: Name of the split.
        labeled: Whether its records carry labels 0 and 1.
        patches: In the order of the records.
        ids: SHA-1 that the pixels of each patch must have.
    """

    path: str
    split: str
    labeled: bool
    patches: Sequence[listing.Patch]
    ids: Sequence[str]


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """A written shard.

    Attributes:
        shard: Name, records, size, hash.
        label_counts: int64 [3]: patches of label 0, 1 and -1.
        channel_sums: int64 [2, 3]: over all pixels, of the values of each
            channel and of their squares. Integers, so that they add up to the
            same in any order.
        faults: Patches left out.
    """

    shard: manifest.Shard
    label_counts: np.ndarray
    channel_sums: np.ndarray
    faults: list[faults.Fault]


def write_shard(task: ShardTask) -> ShardResult:
    """Writes a shard and its part of the sidecar; bad patches are left out."""
    found: list[faults.Fault] = []
    digest = hashlib.sha256()
    label_counts = np.zeros(3, np.int64)
    channel_sums = np.zeros((2, schema.NUM_CHANNELS), np.int64)
    with (
        open(task.path, "wb", buffering=1 << 20) as file,
        open(f"{task.path}.csv", "w", newline="", encoding="utf-8") as sidecar,
    ):
        rows = csv.writer(sidecar, lineterminator="\n")
        for place, (patch, patch_id) in enumerate(
            zip(task.patches, task.ids, strict=True)
        ):
            if place % _COUNT_EVERY == _COUNT_EVERY - 1:
                workers.count_done(_COUNT_EVERY)
            try:
                image = _read_checked(patch, patch_id)
            except ValueError as error:
                found.append(_fault(patch, error))
                continue
            record = records.encode(patch_id, image, patch.label, _NOT_KNOWN)
            file.write(record)
            digest.update(record)
            rows.writerow(_sidecar_row(task, patch, patch_id))
            label_counts[patch.label] += 1
            channel_sums += _sum_channels(image)
        workers.count_done(len(task.patches) % _COUNT_EVERY)
    shard = manifest.Shard(
        name=os.path.basename(task.path),
        num_records=int(label_counts.sum()),
        num_bytes=os.path.getsize(task.path),
        sha256=digest.hexdigest(),
    )
    return ShardResult(shard, label_counts, channel_sums, found)


def hash_patches(
    patches: Sequence[listing.Patch],
) -> tuple[list[str | None], list[faults.Fault]]:
    """Returns the SHA-1 of the pixels of each patch, and the bad patches.

    A bad patch has None for its hash.
    """
    hashes: list[str | None] = []
    found = []
    for patch in patches:
        try:
            hashes.append(schema.hash_pixels(_read(patch)))
        except ValueError as error:
            found.append(_fault(patch, error))
            hashes.append(None)
    workers.count_done(len(patches))
    return hashes, found


def mismatch(patch: listing.Patch, found: str) -> str:
    """Returns the line that says that a name is not the hash of the pixels."""
    return (
        f"{patch.path}: found pixels with SHA-1 {found}, expected the id"
        f" {patch.name}. Fetch the file again, or pass --check_ids=never for"
        " ids that are no hashes."
    )


def _read_checked(patch: listing.Patch, expected: str) -> np.ndarray:
    image = _read(patch)
    found = schema.hash_pixels(image)
    if found != expected:
        raise ValueError(_changed(patch, found, expected))
    return image


def _read(patch: listing.Patch) -> np.ndarray:
    try:
        return tiff.read(patch.path)
    except OSError as error:
        raise ValueError(
            f"{patch.path}: cannot be read ({error.strerror})."
        ) from error


def _changed(patch: listing.Patch, found: str, expected: str) -> str:
    if patch.name == expected:
        return mismatch(patch, found)
    return (
        f"{patch.path}: found pixels with SHA-1 {found}, expected {expected},"
        " as when it was first read. Let nothing write there, and run again."
    )


def _fault(patch: listing.Patch, error: ValueError) -> faults.Fault:
    return faults.Fault(patch.name, str(error))


def _sidecar_row(
    task: ShardTask, patch: listing.Patch, patch_id: str
) -> tuple[object, ...]:
    name = os.path.basename(task.path)
    slide = patch.slide or ""
    return (task.split, name, patch_id, patch.label, slide, patch.name)


def _sum_channels(image: np.ndarray) -> np.ndarray:
    # Down the rows first: 288 contiguous columns add up far faster than 3. The
    # square of a uint8 fits a uint16, the sums of a patch a uint32.
    rows = image.reshape(schema.PATCH_SIZE, -1)
    squares = np.multiply(rows, rows, dtype=np.uint16)
    sums = [rows.sum(0, np.uint32), squares.sum(0, np.uint32)]
    per_column = np.stack(sums).reshape(2, -1, schema.NUM_CHANNELS)
    return per_column.sum(1, dtype=np.int64)
