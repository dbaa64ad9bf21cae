"""Which id a patch gets: its source's name, or the hash of its pixels."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.conversion import write_shard
from pcam_tfdata.records import manifest, sharding
from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, name_arrays

MapTasks = Callable[..., list[Any]]  # Such as `workers.Workers.map`.
_NUM_PROBES = 64
_TASK_PATCHES = 1024

_logger = logging.getLogger(__name__)


def names_are_hashes(
    listings: Sequence[listing.Listing], check_ids: str
) -> bool:
    """Returns whether each name must be the SHA-1 of its pixels.

    With `auto`, up to 64 patches spread over each listing decide: one hit is
    enough. Names that only look like hashes are warned of.

    Args:
        listings: The patches.
        check_ids: `auto`, `always` or `never`.
    """
    if check_ids != "auto":
        return check_ids == "always"
    num_alike = 0
    for patches in listings:
        rows = np.flatnonzero(name_arrays.are_hashes(patches.names))
        num_alike += len(rows)
        if _has_hit(patches, rows):
            return True
    if num_alike:
        _logger.warning(
            "Warning: %s ids are written as a SHA-1 and none is that of its"
            " pixels, of those looked at, as if every patch had been changed"
            " since.",
            f"{num_alike:,}",
        )
    return False


def settle_ids(
    map_tasks: MapTasks,
    listings: Sequence[listing.Listing],
    check_ids: str,
    *,
    has_faults: bool,
    skips_bad: bool,
) -> tuple[list[np.ndarray | None], list[faults.Fault]]:
    """Returns the id of each patch, and the faults seen on the way.

    Names that are hashes are checked when the pixels are read for writing. If
    the job fails anyway and should name every fault, or if folds must be dealt
    by the pixels or without the bad patches, all are read and hashed before.

    Args:
        map_tasks: What runs a function for many tasks.
        listings: The patches.
        check_ids: `auto`, `always` or `never`.
        has_faults: Whether the source has faults already.
        skips_bad: Whether bad patches are left out.

    Returns:
        For each listing ids as of `hash_all`, or None where nothing asks for
        them before the pixels are written.
    """
    must_match = names_are_hashes(listings, check_ids)
    if must_match and not has_faults and not skips_bad:
        return [patches.names for patches in listings], []
    is_dealt = any(patches.is_dealt for patches in listings)
    if not must_match and not has_faults and not is_dealt:
        return [None for _ in listings], []
    hashes, bad = hash_all(map_tasks, listings, must_match=must_match)
    if not must_match:
        _logger.info(
            "Records have hashes for ids, and the source's names in %s.",
            manifest.SIDECAR_FILE,
        )
    return [*hashes], bad


def hash_all(
    map_tasks: MapTasks,
    listings: Sequence[listing.Listing],
    *,
    must_match: bool,
) -> tuple[list[np.ndarray], list[faults.Fault]]:
    """Returns the SHA-1 of each patch's pixels, and the bad patches.

    Args:
        map_tasks: What runs a function for many tasks.
        listings: The patches.
        must_match: Whether a name that is no hash of its pixels is a fault.

    Returns:
        For each listing bytes [num_patches], hex; empty for a patch that cannot
        be used.
    """
    parts = map_tasks(
        functools.partial(write_shard.hash_patches, must_match=must_match),
        (
            patches.take(slice(start, start + _TASK_PATCHES))
            for patches in listings
            for start in range(0, len(patches), _TASK_PATCHES)
        ),
        num_patches=sum(map(len, listings)),
        description="hash",
    )
    none = np.array([], f"S{schema.ID_BYTES}")  # There may be no patch.
    hashes = np.concatenate([none, *(part for part, _ in parts)])
    ends = np.cumsum([len(patches) for patches in listings])
    bad = [fault for _, part in parts for fault in part]
    return np.split(hashes, ends[:-1]), bad


def _has_hit(patches: listing.Listing, rows: np.ndarray) -> bool:
    """Returns whether one of 64 names, of some rows, is the hash of its pixels."""
    if not len(rows):
        return False
    rows = rows[np.argsort(patches.names[rows])]
    bounds = sharding.shard_bounds(len(rows), min(_NUM_PROBES, len(rows)))
    probes = patches.take(rows[bounds[:-1]])
    hashes, _ = write_shard.hash_patches(probes, must_match=True)
    return bool((hashes != b"").any())
