"""One shard: patches in, one file out. Runs in a worker, without TensorFlow."""

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.conversion import journal
from pcam_tfdata.records import manifest, tfrecord
from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, files, versions, workers

MISMATCHES = "ids that are not the SHA-1 of their pixels"
_BLOCK_PATCHES = 64
_FINGERPRINT_DIGITS = 16


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
        path: Where to write it; its sidecar part goes to `path`.csv.
        split: Name of the split.
        patches: What it holds, in the order of the records.
        ids: bytes [num_patches]: the SHA-1 that the pixels of each patch must
            have, in hex; None where any will do.
    """

    path: str
    split: str
    patches: listing.Listing
    ids: np.ndarray | None

    def fingerprint(self) -> str:
        """Returns a hash of what the shard depends on; it may look at files."""
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
            if column is not None:
                digest.update(f"{column.dtype} {column.shape}".encode())
                digest.update(column.tobytes())
        return digest.hexdigest()


@functools.cache
def _name_code() -> str:
    """Returns the versions of what decodes and writes."""
    return json.dumps(versions.of_conversion())


def fingerprint_all(tasks: Iterable[ShardTask]) -> str:
    """Returns a hash of what many shards depend on; it may look at files."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(f"{task.path} {task.fingerprint()}\n".encode())
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


def write_shard(task: ShardTask) -> journal.ShardResult:
    """Writes a shard and its part of the sidecar; bad patches are left out.

    A shard that an earlier job finished is left as it is.

    Raises:
        OSError: the disk is full, or a file cannot be read.
    """
    fingerprint = task.fingerprint()
    result = journal.read(task.path, fingerprint)
    if result is None:
        result = _write(task)
        journal.write(task.path, fingerprint, result)
    else:
        workers.count_done(len(task.patches))
    return result


def hash_patches(
    patches: listing.Listing,
) -> tuple[np.ndarray, list[faults.Fault]]:
    """Returns the SHA-1 of the pixels of each patch, and the bad patches.

    Returns:
        bytes [num_patches], hex; empty for a bad patch.
    """
    hashes = np.zeros(len(patches), f"S{schema.ID_BYTES}")
    bad = []
    for row, pixels in enumerate(patches.images.read()):
        if pixels.image is None:
            bad.append(faults.Fault(_name(patches, row), pixels.reason))
        else:
            hashes[row] = schema.hash_pixels(pixels.image)
    workers.count_done(len(patches))
    return hashes, bad


def describe_mismatch(patches: listing.Listing, row: int, sha1: str) -> str:
    """Returns the line that says that a name is not the hash of the pixels."""
    return (
        f"{patches.images.locate(row)}: found pixels with SHA-1 {sha1},"
        f" expected the id {_name(patches, row)}. Fetch the file again, or pass"
        " --check_ids=never for ids that are no hashes."
    )


def _write(task: ShardTask) -> journal.ShardResult:
    digest = hashlib.sha256()
    channel_sums = np.zeros((2, schema.NUM_CHANNELS), np.int64)
    # Index -1 is the last: patches without a label.
    label_counts, num_contradictions = np.zeros(3, np.int64), 0
    bad: list[faults.Fault] = []
    with (
        files.open_whole(
            task.path, "wb", is_shared=True, buffering=1 << 20
        ) as file,
        files.open_whole(
            f"{task.path}.csv", is_shared=True, newline=""
        ) as sidecar,
    ):
        writer = csv.writer(sidecar, lineterminator="\n")
        for block in _read_blocks(task, bad):
            labels = block.patches.labels
            data = tfrecord.encode(
                block.ids, block.images, labels, block.tumor_fractions
            ).data
            file.write(data)
            digest.update(data)
            channel_sums += _sum_channels(block.images)
            label_counts += np.bincount(labels % 3, minlength=3)
            num_contradictions += schema.find_contradictions(
                labels, block.tumor_fractions
            ).sum()
            writer.writerows(_list_sidecar_rows(task, block))
        num_bytes = file.tell()
    return journal.ShardResult(
        manifest.Shard(
            name=os.path.basename(task.path),
            num_records=int(label_counts.sum()),
            num_bytes=num_bytes,
            sha256=digest.hexdigest(),
        ),
        label_counts=label_counts.tolist(),
        channel_sums=channel_sums.tolist(),
        num_contradictions=int(num_contradictions),
        faults=bad,
    )


class _Block(NamedTuple):
    """Patches that can be used: their part of the listing, and what was read.

    Attributes:
        patches: A listing of them alone.
        ids: bytes [num_patches], hex.
        images: uint8 [num_patches, 96, 96, 3].
        tumor_fractions: float [num_patches].
    """

    patches: listing.Listing
    ids: np.ndarray
    images: np.ndarray
    tumor_fractions: np.ndarray


def _read_blocks(task: ShardTask, bad: list[faults.Fault]) -> Iterator[_Block]:
    """Yields what can be used, 64 patches at a time; the next overwrites it.

    Args:
        task: What to read.
        bad: Faults of patches that cannot be used are added to it.
    """
    images = np.empty((_BLOCK_PATCHES, *schema.IMAGE_SHAPE), np.uint8)
    pixels_of_row = enumerate(task.patches.images.read())
    while block := list(itertools.islice(pixels_of_row, _BLOCK_PATCHES)):
        kept: list[tuple[int, str, float]] = []
        for row, pixels in block:
            reason, kind = pixels.reason, faults.UNREADABLE
            if pixels.image is not None:
                patch_id = schema.hash_pixels(pixels.image)
                reason, kind = _find_change(task, row, patch_id), MISMATCHES
                images[len(kept)] = pixels.image
            if reason:
                name = _name(task.patches, row)
                bad.append(faults.Fault(name, reason, kind))
            else:
                kept.append((row, patch_id, pixels.tumor_fraction))
        workers.count_done(len(block))
        if kept:
            rows, ids, fractions = zip(*kept, strict=True)
            yield _Block(
                task.patches.take(np.array(rows)),
                np.array(ids, np.bytes_),
                images[: len(kept)],
                np.array(fractions),
            )


def _find_change(task: ShardTask, row: int, sha1: str) -> str:
    """Returns what is wrong with the id of a patch; nothing if it is right."""
    if task.ids is None or sha1 == (expected := task.ids[row].decode()):
        return ""
    if _name(task.patches, row) == expected:
        return describe_mismatch(task.patches, row, sha1)
    return (
        f"{task.patches.images.locate(row)}: found pixels with SHA-1 {sha1},"
        f" expected {expected}, as when it was first read. Let nothing write"
        " there, and run again."
    )


def _name(patches: listing.Listing, row: int) -> str:
    return patches.names[row].decode()


def _list_sidecar_rows(
    task: ShardTask, block: _Block
) -> Iterator[tuple[object, ...]]:
    """Yields `manifest.SIDECAR_COLUMNS` but for the row's number."""
    patches, num_patches = block.patches, len(block.ids)
    slides, coordinates = [b""] * num_patches, [("", "")] * num_patches
    if patches.slides is not None:
        slides = patches.slides.tolist()
    if patches.coordinates is not None:
        coordinates = patches.coordinates.tolist()
    shard = os.path.basename(task.path)
    for patch_id, label, slide, name, xy in zip(
        block.ids.tolist(),
        patches.labels.tolist(),
        slides,
        patches.names.tolist(),
        coordinates,
        strict=True,
    ):
        yield (
            task.split, shard, patch_id.decode(), label, slide.decode(),
            name.decode(), *xy,
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
