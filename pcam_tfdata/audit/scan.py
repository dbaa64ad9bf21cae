"""Reads every patch of a records folder once, and some pairs again.

Runs in workers, without TensorFlow. What goes back to the parent is half a
kilobyte a patch.
"""

from collections.abc import Sequence

import numpy as np
import threadpoolctl

from pcam_tfdata import schema
from pcam_tfdata.audit import alignment, optical_density, patch_statistics
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import workers

_PIECE_PATCHES = 4096  # A task: 110 MB of a shard.
_BLOCK_PATCHES = 32  # Their densities stay in a core's cache.
_PIECE_PAIRS = 256
_BLOCK_PAIRS = 16


def read_patches(
    pool: workers.Workers, selection: records_folder.Selection
) -> tuple[np.ndarray, np.ndarray, np.ndarray, patch_statistics.Statistics]:
    """Reads all patches, shard after shard.

    Returns:
        Ids, S40 [n]; labels, int8 [n]: 0, 1, or -1; tumor fractions, float32
        [n], NaN where not known; and statistics, with embeddings in float16.

    Raises:
        FileNotFoundError, ValueError: a shard is missing or not whole.
    """
    pieces = [
        (shard, first)
        for shard in selection.shards
        for first in range(0, shard.num_records, _PIECE_PATCHES)
    ]
    parts = pool.map(
        scan_piece,
        pieces,
        num_patches=selection.num_patches,
        description="audit",
    )
    ids, labels, fractions, *measured = _join(parts)
    return ids, labels, fractions, patch_statistics.Statistics(*measured)


@threadpoolctl.threadpool_limits.wrap(limits=1)  # A worker has a core.
def scan_piece(
    piece: tuple[records_folder.ShardFile, int],
) -> tuple[np.ndarray, ...]:
    """Returns what is read of a shard's records, from a number of them on."""
    shard, first = piece
    records = shard.map()[first : first + _PIECE_PATCHES]
    images = tfrecord.view_images(records, shard.layout)
    blocks = []
    for start in range(0, len(images), _BLOCK_PATCHES):
        block = np.ascontiguousarray(images[start : start + _BLOCK_PATCHES])
        measured = patch_statistics.measure(block)
        half = measured.embeddings.astype(np.float16)
        blocks.append(measured._replace(embeddings=half))
        workers.count_done(len(block))
    layout = shard.layout
    labels = np.full(len(records), schema.UNLABELED, np.int8)
    if shard.labeled:
        labels = records[:, layout.label_offset].astype(np.int8)
    return (
        _read_column(records, layout.id_offset, f"S{schema.ID_BYTES}"),
        labels,
        _read_column(records, layout.tumor_fraction_offset, "<f4"),
        *_join(blocks),
    )


def align(
    pool: workers.Workers,
    selection: records_folder.Selection,
    pairs: np.ndarray,
) -> alignment.Alignments:
    """Returns how well pairs of patches lie on each other.

    Args:
        pool: Its workers do it.
        selection: All patches.
        pairs: int64 [num_pairs, 2], numbers of patches.
    """
    tasks = [
        (selection, pairs[start : start + _PIECE_PAIRS])
        for start in range(0, max(len(pairs), 1), _PIECE_PAIRS)
    ]
    parts = pool.map(
        align_pairs, tasks, num_patches=len(pairs), description="compare"
    )
    return alignment.Alignments(*_join(parts))


@threadpoolctl.threadpool_limits.wrap(limits=1)
def align_pairs(
    task: tuple[records_folder.Selection, np.ndarray],
) -> alignment.Alignments:
    """Returns how well the pairs of one task lie on each other."""
    selection, pairs = task
    images = read_images(selection, pairs.ravel())
    blocks = []
    for start in range(0, max(len(images), 1), 2 * _BLOCK_PAIRS):
        gray = optical_density.mean_of_channels(
            optical_density.of_pixels(images[start : start + 2 * _BLOCK_PAIRS])
        )
        blocks.append(alignment.align(gray[::2], gray[1::2]))
        workers.count_done(len(gray) // 2)
    return alignment.Alignments(*_join(blocks))


def read_images(
    selection: records_folder.Selection, patches: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Returns some patches: uint8 [len(patches), 96, 96, 3]."""
    shards, records = selection.locate(np.asarray(patches, np.int64))
    images = np.empty((len(shards), *schema.IMAGE_SHAPE), np.uint8)
    for number in np.unique(shards):
        shard = selection.shards[number]
        chosen = shards == number
        views = tfrecord.view_images(shard.map(), shard.layout)
        images[chosen] = views[records[chosen]]
    return images


def _read_column(records: np.ndarray, start: int, dtype: str) -> np.ndarray:
    """Returns what stands at a byte of each record: dtype [n]."""
    end = start + np.dtype(dtype).itemsize
    return np.ascontiguousarray(records[:, start:end]).view(dtype).ravel()


def _join(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Returns the columns of all parts, one after the other."""
    return [np.concatenate(column) for column in zip(*parts, strict=True)]
