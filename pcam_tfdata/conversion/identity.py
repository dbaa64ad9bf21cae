"""Which id a patch gets: its source's name, or the hash of its pixels."""

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
    """Returns whether the names are to be the SHA-1 of the pixels.

    With `auto`, up to 64 patches spread over each listing decide: one hit is
    enough.
    """
    if check_ids != "auto":
        return check_ids == "always"
    return any(map(_has_hit, listings))


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
    is_trusted = names_are_hashes(listings, check_ids)
    if is_trusted and not has_faults and not skips_bad:
        return [patches.names for patches in listings], []
    is_dealt = any(patches.is_dealt for patches in listings)
    if not is_trusted and not has_faults and not is_dealt:
        return [None for _ in listings], []
    hashes, bad = hash_all(map_tasks, listings, check_ids)
    if any(
        np.any((sha1 != patches.names) & (sha1 != b""))
        for patches, sha1 in zip(listings, hashes, strict=True)
    ):
        _logger.info(
            "Records have hashes for ids, and the source's names in %s.",
            manifest.SIDECAR_FILE,
        )
    return [*hashes], bad


def count_usable(
    listings: Sequence[listing.Listing], ids: Sequence[np.ndarray | None]
) -> int:
    """Returns how many patches have an id, or will have one."""
    return sum(
        len(patches) if own is None else int(np.count_nonzero(own != b""))
        for patches, own in zip(listings, ids, strict=True)
    )


def hash_all(
    map_tasks: MapTasks,
    listings: Sequence[listing.Listing],
    check_ids: str,
) -> tuple[list[np.ndarray], list[faults.Fault]]:
    """Returns the SHA-1 of each patch's pixels, and the bad patches.

    With `auto` a name that is no hash is a fault as soon as another one is; if
    none is, a log line says so. With `always` any is a fault.

    Args:
        map_tasks: What runs a function for many tasks.
        listings: The patches.
        check_ids: `auto`, `always` or `never`.

    Returns:
        For each listing bytes [num_patches], hex; empty for a patch that cannot
        be used.
    """
    parts = map_tasks(
        write_shard.hash_patches,
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
    bad = [fault for _, part in parts for fault in part]
    ends = np.cumsum([len(patches) for patches in listings])
    by_listing = np.split(hashes, ends[:-1])
    if _must_match(listings, by_listing, check_ids):
        for patches, own_hashes in zip(listings, by_listing, strict=True):
            bad += _drop_mismatches(patches, own_hashes)
    return by_listing, bad


def _has_hit(patches: listing.Listing) -> bool:
    """Returns whether one of 64 names is the hash of its pixels."""
    rows = np.flatnonzero(name_arrays.are_hashes(patches.names))
    if not len(rows):
        return False
    rows = rows[np.argsort(patches.names[rows])]
    bounds = sharding.shard_bounds(len(rows), min(_NUM_PROBES, len(rows)))
    probes = patches.take(rows[bounds[:-1]])
    hashes, _ = write_shard.hash_patches(probes)
    return bool((hashes == probes.names).any())


def _drop_mismatches(
    patches: listing.Listing, hashes: np.ndarray
) -> list[faults.Fault]:
    """Empties the hashes that are not the name; returns a fault for each."""
    bad = []
    differs = (hashes != patches.names) & (hashes != b"")
    for row in np.flatnonzero(differs).tolist():
        reason = write_shard.describe_mismatch(
            patches, row, hashes[row].decode()
        )
        name = patches.names[row].decode()
        bad.append(faults.Fault(name, reason, write_shard.MISMATCHES))
        hashes[row] = b""
    return bad


def _must_match(
    listings: Sequence[listing.Listing],
    hashes: Sequence[np.ndarray],
    check_ids: str,
) -> bool:
    if check_ids != "auto":
        return check_ids == "always"
    names = [patches.names for patches in listings]
    if not any(map(len, names)):
        return False
    if any(map(np.any, map(np.equal, names, hashes))):
        return True
    _logger.info(
        "No id is the SHA-1 of its pixels, so that is not asked of any."
    )
    num_hashes = sum(
        np.count_nonzero(name_arrays.are_hashes(name) & (sha1 != b""))
        for name, sha1 in zip(names, hashes, strict=True)
    )
    if num_hashes:
        _logger.warning(
            "Warning: %s ids are written as a SHA-1 and none is that of its"
            " pixels, as if every patch had been changed since.",
            f"{num_hashes:,}",
        )
    return False
