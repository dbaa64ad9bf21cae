"""Reads every patch of a records folder once, and some pairs again.

Runs in workers, without TensorFlow. What comes back of a patch is half a kilobyte.
"""

import numpy as np
import threadpoolctl

from pcam_tfdata.audit import alignment, patch_statistics
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import workers

_PIECE_PATCHES = 4096  # A task: 110 MB of a shard.
_BLOCK_PATCHES = 32  # Their densities stay in a core's cache.
_PIECE_PAIRS = 64


def read_patches(
    pool: workers.Workers, selection: records_folder.Selection
) -> tuple[np.ndarray, np.ndarray]:
    """Reads all patches, shard after shard.

    Returns:
        Tumor fractions, float32 [n], NaN where not known; and what is measured,
        `patch_statistics.MEASURES` [n].

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
    fractions, measured = map(np.concatenate, zip(*parts, strict=True))
    return fractions, measured


@threadpoolctl.threadpool_limits.wrap(limits=1)  # A worker has a core.
def scan_piece(
    piece: tuple[records_folder.ShardFile, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is read of a shard's records, from a number of them on."""
    shard, first = piece
    records = shard.map()[first : first + _PIECE_PATCHES]
    images = tfrecord.view_images(records, shard.layout)
    measured = np.empty(len(records), patch_statistics.MEASURES)
    for start in range(0, len(records), _BLOCK_PATCHES):
        block = np.ascontiguousarray(images[start : start + _BLOCK_PATCHES])
        measured[start : start + len(block)] = patch_statistics.measure(block)
        workers.count_done(len(block))
    return tfrecord.read_tumor_fractions(records, shard.layout), measured


def align(
    pool: workers.Workers,
    selection: records_folder.Selection,
    pairs: np.ndarray,
) -> np.ndarray:
    """Returns how well pairs of patches lie on each other.

    Args:
        pool: Its workers do it.
        selection: All patches.
        pairs: int64 [num_pairs, 2], numbers of patches.

    Returns:
        `alignment.ALIGNMENT` [num_pairs].
    """
    tasks = [
        (selection, pairs[start : start + _PIECE_PAIRS])
        for start in range(0, max(len(pairs), 1), _PIECE_PAIRS)
    ]
    parts = pool.map(
        align_pairs, tasks, num_patches=len(pairs), description="compare"
    )
    return np.concatenate(parts)


@threadpoolctl.threadpool_limits.wrap(limits=1)
def align_pairs(
    task: tuple[records_folder.Selection, np.ndarray],
) -> np.ndarray:
    """Returns how well the pairs of one task lie on each other."""
    selection, pairs = task
    images = selection.read_images(pairs.ravel())
    gray = patch_statistics.mean_of_channels(
        patch_statistics.optical_density(images)
    )
    workers.count_done(len(pairs))
    return alignment.align(gray[::2], gray[1::2])
