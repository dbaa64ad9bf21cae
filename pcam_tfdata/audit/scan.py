"""Reads every patch of a records folder once, and some pairs again.

Runs in workers, without TensorFlow. What goes back to the parent is half a
kilobyte a patch.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence

import numpy as np
import threadpoolctl

from pcam_tfdata import schema
from pcam_tfdata.audit import alignment, optical_density, patch_statistics
from pcam_tfdata.records import manifest, tfrecord
from pcam_tfdata.system import workers

_PIECE_PATCHES = 4096  # A task: 110 MB of a shard.
_BLOCK_PATCHES = 32  # Their densities stay in a core's cache.
_PIECE_PAIRS = 2048
_BLOCK_PAIRS = 16


@dataclasses.dataclass(frozen=True)
class ShardFile:
    """A shard on the disk, and how its records lie."""

    path: str
    num_records: int
    labeled: bool
    layout: tfrecord.Layout


@dataclasses.dataclass(frozen=True)
class Piece:
    """Records of a shard, from `first` on."""

    shard: ShardFile
    first: int
    num_records: int


@dataclasses.dataclass(frozen=True)
class Scan:
    """What was read of patches, in their order.

    Attributes:
        ids: S40 [n].
        labels: int8 [n]: 0, 1, or -1.
        tumor_fractions: float32 [n]; NaN where not known.
        statistics: Of each.
        embeddings: float16 [n, perceptual.EMBEDDING_SIZE].
    """

    ids: np.ndarray
    labels: np.ndarray
    tumor_fractions: np.ndarray
    statistics: patch_statistics.Statistics
    embeddings: np.ndarray


@dataclasses.dataclass(frozen=True)
class PairTask:
    """Pairs of patches to lay on each other.

    Attributes:
        shards: Of all folders.
        first: int64 [num_pairs, 2]: number of the shard, record in it.
        second: Likewise.
    """

    shards: tuple[ShardFile, ...]
    first: np.ndarray
    second: np.ndarray


def list_shards(
    records_dir: str, content: manifest.Manifest
) -> list[ShardFile]:
    """Returns the shards of a records folder in the order of their rows."""
    return [
        ShardFile(
            path=os.path.join(records_dir, shard.name),
            num_records=shard.num_records,
            labeled=split.labeled,
            layout=split.layout,
        )
        for split in content.splits
        for shard in split.shards
    ]


def scan(pool: workers.Workers, shards: Sequence[ShardFile]) -> Scan:
    """Returns what is read of all patches, shard after shard.

    Raises:
        FileNotFoundError, ValueError: a shard is missing or not whole.
    """
    parts = pool.map(
        scan_piece,
        [piece for shard in shards for piece in _pieces(shard)],
        num_patches=sum(shard.num_records for shard in shards),
        description="audit",
    )
    return Scan(
        ids=np.concatenate([part.ids for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        tumor_fractions=np.concatenate(
            [part.tumor_fractions for part in parts]
        ),
        statistics=patch_statistics.join([part.statistics for part in parts]),
        embeddings=np.concatenate([part.embeddings for part in parts]),
    )


@threadpoolctl.threadpool_limits.wrap(limits=1)  # A worker has a core.
def scan_piece(piece: Piece) -> Scan:
    """Returns what is read of the records of one piece."""
    layout = piece.shard.layout
    chosen = slice(piece.first, piece.first + piece.num_records)
    mapped = _map(piece.shard)[chosen]
    images = tfrecord.view_images(mapped, layout)
    statistics, embeddings = [], []
    for start in range(0, len(images), _BLOCK_PATCHES):
        block = np.ascontiguousarray(images[start : start + _BLOCK_PATCHES])
        measured, looks = patch_statistics.measure(block)
        statistics.append(measured)
        embeddings.append(looks.astype(np.float16))
        workers.count_done(len(block))
    return Scan(
        ids=_read_column(mapped, layout.id_offset, f"S{schema.ID_BYTES}"),
        labels=_read_labels(mapped, piece.shard),
        tumor_fractions=_read_column(
            mapped, layout.tumor_fraction_offset, "<f4"
        ),
        statistics=patch_statistics.join(statistics),
        embeddings=np.concatenate(embeddings),
    )


def align(
    pool: workers.Workers,
    shards: Sequence[ShardFile],
    first: np.ndarray,
    second: np.ndarray,
) -> alignment.Alignments:
    """Returns how well pairs of patches lie on each other.

    Args:
        pool: Of workers.
        shards: Of all folders; patches are numbered through them.
        first: int64 [num_pairs], a patch of each pair.
        second: int64 [num_pairs], the other one.
    """
    first, second = _locate(shards, first), _locate(shards, second)
    tasks = [
        PairTask(
            shards=tuple(shards),
            first=first[start : start + _PIECE_PAIRS],
            second=second[start : start + _PIECE_PAIRS],
        )
        for start in range(0, max(len(first), 1), _PIECE_PAIRS)
    ]
    parts = pool.map(
        align_pairs, tasks, num_patches=len(first), description="compare"
    )
    return alignment.join(parts)


@threadpoolctl.threadpool_limits.wrap(limits=1)
def align_pairs(task: PairTask) -> alignment.Alignments:
    """Returns how well the pairs of one task lie on each other."""
    mapped = functools.cache(lambda number: _view(task.shards[number]))
    parts = [
        alignment.align(*np.zeros((2, 0, *schema.IMAGE_SHAPE[:2]), np.float32))
    ]
    for start in range(0, len(task.first), _BLOCK_PAIRS):
        block = slice(start, start + _BLOCK_PAIRS)
        sides = [
            _gray(np.stack([mapped(shard)[record] for shard, record in side]))
            for side in (task.first[block], task.second[block])
        ]
        parts.append(alignment.align(*sides))
        workers.count_done(len(sides[0]))
    return alignment.join(parts)


def read_images(
    shards: Sequence[ShardFile], patches: Sequence[int]
) -> np.ndarray:
    """Returns some patches: uint8 [len(patches), 96, 96, 3]."""
    places = _locate(shards, np.asarray(patches, np.int64))
    images = np.empty((len(places), *schema.IMAGE_SHAPE), np.uint8)
    for image, (shard, record) in zip(images, places, strict=True):
        image[:] = _view(shards[shard])[record]
    return images


def _pieces(shard: ShardFile) -> list[Piece]:
    return [
        Piece(shard, first, min(_PIECE_PATCHES, shard.num_records - first))
        for first in range(0, shard.num_records, _PIECE_PATCHES)
    ]


def _map(shard: ShardFile) -> np.ndarray:
    return tfrecord.map_shard(shard.path, shard.num_records, shard.layout)


def _view(shard: ShardFile) -> np.ndarray:
    return tfrecord.view_images(_map(shard), shard.layout)


def _gray(images: np.ndarray) -> np.ndarray:
    densities = optical_density.of_pixels(images)
    return optical_density.mean_of_channels(densities)


def _locate(shards: Sequence[ShardFile], patches: np.ndarray) -> np.ndarray:
    """Returns number of the shard and record in it: int64 [n, 2]."""
    bounds = np.cumsum([0] + [shard.num_records for shard in shards])
    numbers = np.searchsorted(bounds, patches, side="right") - 1
    return np.stack([numbers, patches - bounds[numbers]], axis=1)


def _read_column(mapped: np.ndarray, start: int, dtype: str) -> np.ndarray:
    """Returns what stands at a byte of each record: dtype [n]."""
    end = start + np.dtype(dtype).itemsize
    return np.ascontiguousarray(mapped[:, start:end]).view(dtype).ravel()


def _read_labels(mapped: np.ndarray, shard: ShardFile) -> np.ndarray:
    if not shard.labeled:
        return np.full(len(mapped), schema.UNLABELED, np.int8)
    return mapped[:, shard.layout.label_offset].astype(np.int8)
