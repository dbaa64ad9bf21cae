"""One shard: patches in, one file out. Runs in a worker, without TensorFlow."""

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.conversion import journal
from pcam_tfdata.records import manifest, tfrecord
from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, files, versions, workers

MISMATCHES = "ids that are not the SHA-1 of their pixels"
_BLOCK_PATCHES = 64


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
        bytes_read = patches.images.identify(are_hashed=self.ids is not None)
        digest = hashlib.sha256(
            f"{self.split} {bytes_read} {_name_code()}".encode()
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


@functools.cache
def _name_code() -> str:
    """Returns the versions of what decodes and writes."""
    return json.dumps(versions.of_conversion())


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
        files.open_whole(
            task.path, "wb", is_shared=True, buffering=1 << 20
        ) as file,
        files.open_whole(
            f"{task.path}.csv", is_shared=True, newline=""
        ) as sidecar,
    ):
        rows = csv.writer(sidecar, lineterminator="\n")
        for block in _read_blocks(task, found):
            labels = task.patches.labels[block.rows]
            written = tfrecord.encode_block(
                block.ids, block.images, labels, block.tumor_fractions
            )
            file.write(written)
            tally.add(written, block, labels)
            rows.writerows(_sidecar_rows(task, block))
    shard = manifest.Shard(
        name=os.path.basename(task.path),
        num_records=int(tally.label_counts.sum()),
        num_bytes=tally.num_bytes,
        sha256=tally.digest.hexdigest(),
    )
    return journal.ShardResult(
        shard,
        tally.label_counts,
        tally.channel_sums,
        tally.num_contradictions,
        found,
    )


class _Tally:
    """What is summed up over the records of a shard."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.num_bytes = 0
        self.label_counts = np.zeros(3, np.int64)
        self.channel_sums = np.zeros((2, schema.NUM_CHANNELS), np.int64)
        self.num_contradictions = 0

    def add(
        self, written: np.ndarray, block: "_Block", labels: np.ndarray
    ) -> None:
        """Adds the records of a block."""
        self.digest.update(written)
        self.num_bytes += written.nbytes
        self.label_counts += np.bincount(labels % 3, minlength=3)
        self.channel_sums += _sum_channels(block.images)
        contradicts = schema.find_contradictions(labels, block.tumor_fractions)
        self.num_contradictions += int(contradicts.sum())


@dataclasses.dataclass(frozen=True)
class _Block:
    """Patches that can be used.

    Attributes:
        rows: int64 [num_patches], in the task's listing.
        ids: bytes [num_patches], hex.
        images: uint8 [num_patches, 96, 96, 3].
        tumor_fractions: float [num_patches].
    """

    rows: np.ndarray
    ids: np.ndarray
    images: np.ndarray
    tumor_fractions: np.ndarray


def _read_blocks(
    task: ShardTask, found: list[faults.Fault]
) -> Iterator[_Block]:
    """Yields what can be used, 64 patches at a time; the next overwrites it."""
    images = np.empty((_BLOCK_PATCHES, *schema.IMAGE_SHAPE), np.uint8)
    pixels_of_row = enumerate(task.patches.images.read())
    while some := list(itertools.islice(pixels_of_row, _BLOCK_PATCHES)):
        kept = []
        for row, pixels in some:
            reason, kind = pixels.reason, faults.UNREADABLE
            if pixels.image is not None:
                patch_id = schema.hash_pixels(pixels.image)
                reason, kind = _find_change(task, row, patch_id), MISMATCHES
            if reason:
                name = _name(task.patches, row)
                found.append(faults.Fault(name, reason, kind))
                continue
            images[len(kept)] = pixels.image
            kept.append((row, patch_id, pixels.tumor_fraction))
        workers.count_done(len(some))
        if kept:
            rows, ids, fractions = zip(*kept, strict=True)
            yield _Block(
                np.array(rows),
                np.array(ids, np.bytes_),
                images[: len(kept)],
                np.array(fractions),
            )


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


def _sidecar_rows(
    task: ShardTask, block: _Block
) -> Iterator[tuple[object, ...]]:
    patches = task.patches.take(block.rows)
    num_patches = len(block.rows)
    slides, coordinates = [b""] * num_patches, [("", "")] * num_patches
    if patches.slides is not None:
        slides = patches.slides.tolist()
    if patches.coordinates is not None:
        coordinates = patches.coordinates.tolist()
    shard = os.path.basename(task.path)
    for patch_id, label, slide, name, (x, y) in zip(
        block.ids.tolist(),
        patches.labels.tolist(),
        slides,
        patches.names.tolist(),
        coordinates,
        strict=True,
    ):
        yield (
            task.split, shard, patch_id.decode(), label, slide.decode(),
            name.decode(), x, y,
        )  # fmt: skip


def _sum_channels(images: np.ndarray) -> np.ndarray:
    """Returns int64 [2, 3]: the sums of each channel, and of its squares."""
    # Down the patches first: 27,648 contiguous columns add up far faster than
    # 3. In float32, for which processors have the best instructions; it holds
    # integers up to 2^24 exactly, the squares of 258 patches.
    rows = images.reshape(len(images), -1).astype(np.float32)
    squares = np.einsum("ij,ij->j", rows, rows)
    sums = np.stack([rows.sum(0), squares]).astype(np.int64)
    per_column = sums.reshape(2, schema.PATCH_SIZE, -1).sum(1)
    return per_column.reshape(2, -1, schema.NUM_CHANNELS).sum(1)
