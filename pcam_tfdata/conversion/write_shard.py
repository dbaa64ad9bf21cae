"""One shard: patches in, one file out. Runs in a worker, without TensorFlow."""

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.conversion import journal
from pcam_tfdata.records import manifest, tfrecord
from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, files, name_arrays, versions, workers

_MISMATCHES = "ids that are not the SHA-1 of their pixels"
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
            patches.tumor_fractions,
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
    patches: listing.Listing, *, must_match: bool
) -> tuple[np.ndarray, list[faults.Fault]]:
    """Returns the SHA-1 of the pixels of each patch, and the bad patches.

    Args:
        patches: Those to read.
        must_match: Whether a name that is not the SHA-1 is a fault.

    Returns:
        bytes [num_patches], hex; empty for a bad patch.
    """
    hashes = np.zeros(len(patches), f"S{schema.ID_BYTES}")
    bad: list[faults.Fault] = []
    ids = patches.names if must_match else None
    for block in _read_blocks(patches, ids, bad):
        for row, _, sha1 in block:
            hashes[row] = sha1
    return hashes, bad


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
        for block in filter(None, _read_blocks(task.patches, task.ids, bad)):
            rows, pixels, ids = zip(*block, strict=True)
            patches = task.patches.take(np.array(rows))
            images = np.stack([patch.image for patch in pixels])
            fractions = patches.tumor_fractions
            if fractions is None:
                fractions = np.array([patch.tumor_fraction for patch in pixels])
            data = tfrecord.encode(
                np.array(ids, np.bytes_), images, patches.labels, fractions
            ).data
            file.write(data)
            digest.update(data)
            writer.writerows(_list_sidecar_rows(task, patches, ids))
            channel_sums += _sum_channels(images)
            label_counts += np.bincount(patches.labels % 3, minlength=3)
            num_contradictions += schema.find_contradictions(
                patches.labels, fractions
            ).sum()
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


def _read_blocks(
    patches: listing.Listing, ids: np.ndarray | None, bad: list[faults.Fault]
) -> Iterator[list[tuple[int, listing.Pixels, str]]]:
    """Yields row, pixels and SHA-1 of what can be used of each 64 patches.

    Args:
        patches: What to read.
        ids: bytes [num_patches]: the SHA-1 that each must have, or None.
        bad: Faults of patches that cannot be used are added to it.
    """
    pixels_of_row = enumerate(patches.images.read())
    while block := list(itertools.islice(pixels_of_row, _BLOCK_PATCHES)):
        usable = []
        for row, pixels in block:
            name = patches.names[row].decode()
            if pixels.image is None:
                bad.append(faults.Fault(name, pixels.reason))
                continue
            sha1 = schema.hash_pixels(pixels.image)
            if ids is None or sha1 == (expected := ids[row].decode()):
                usable.append((row, pixels, sha1))
                continue
            reason = (
                f"{patches.images.locate(row)}: found pixels with SHA-1 {sha1},"
                f" expected {expected}, its id or what was first read. Fetch"
                " the file again and let nothing write there, or pass"
                " --check_ids=never for ids that are no hashes."
            )
            bad.append(faults.Fault(name, reason, _MISMATCHES))
        workers.count_done(len(block))
        yield usable


def _list_sidecar_rows(
    task: ShardTask, patches: listing.Listing, ids: Sequence[str]
) -> Iterable[tuple[object, ...]]:
    """Yields `manifest.SIDECAR_COLUMNS` but for the row's number."""
    slides: Sequence[object] = [""] * len(ids)
    x = y = slides
    if patches.slides is not None:
        slides = name_arrays.to_text(patches.slides)
    if patches.coordinates is not None:
        x, y = patches.coordinates.T.tolist()
    return zip(
        itertools.repeat(task.split),
        itertools.repeat(os.path.basename(task.path)),
        ids,
        patches.labels.tolist(),
        slides,
        name_arrays.to_text(patches.names),
        x,
        y,
        strict=False,
    )


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
