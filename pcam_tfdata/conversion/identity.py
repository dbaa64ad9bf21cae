"""Which id a patch gets: its source's name, or the hash of its pixels."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.conversion import write_shard
from pcam_tfdata.records import sharding
from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, name_arrays, workers

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


def hash_all(
    pool: workers.Pool, listings: Sequence[listing.Listing], check_ids: str
) -> tuple[list[np.ndarray], list[faults.Fault]]:
    """Returns the SHA-1 of each patch's pixels, and the bad patches.

    With `auto` a name that is no hash is a fault as soon as another one is; if
    none is, a log line says so. With `always` any is a fault.

    Returns:
        For each listing bytes [num_patches], hex; empty for a patch that cannot
        be used.
    """
    parts = pool.map(
        write_shard.hash_patches,
        (part for patches in listings for part in _cut(patches)),
        num_patches=sum(map(len, listings)),
        description="hash",
    )
    none = np.array([], f"S{schema.ID_BYTES}")  # There may be no patch.
    hashes = np.concatenate([none, *(part for part, _ in parts)])
    bad = [fault for _, part in parts for fault in part]
    ends = np.cumsum([len(patches) for patches in listings])
    by_listing = np.split(hashes, ends[:-1])
    if _must_match(listings, by_listing, check_ids):
        for patches, found in zip(listings, by_listing, strict=True):
            bad += _drop_mismatches(patches, found)
    return by_listing, bad


def _has_hit(patches: listing.Listing) -> bool:
    """Returns whether one of 64 names is the hash of its pixels."""
    rows = np.flatnonzero(name_arrays.are_hashes(patches.names))
    if not len(rows):
        return False
    rows = rows[name_arrays.argsort(patches.names[rows])]
    bounds = sharding.shard_bounds(len(rows), min(_NUM_PROBES, len(rows)))
    probes = patches.take(rows[bounds[:-1]])
    hashes, _ = write_shard.hash_patches(probes)
    return bool((hashes == probes.names).any())


def _cut(patches: listing.Listing) -> Iterator[listing.Listing]:
    for start in range(0, len(patches), _TASK_PATCHES):
        yield patches.take(slice(start, start + _TASK_PATCHES))


def _drop_mismatches(
    patches: listing.Listing, hashes: np.ndarray
) -> list[faults.Fault]:
    """Empties the hashes that are not the name; returns a fault for each."""
    rows = np.flatnonzero((hashes != patches.names) & (hashes != b""))
    found = [
        faults.Fault(
            patches.names[row].decode(),
            write_shard.mismatch(patches, row, hashes[row].decode()),
            write_shard.MISMATCHES,
        )
        for row in rows
    ]
    hashes[rows] = b""
    return found


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
        np.count_nonzero(name_arrays.are_hashes(name) & (found != b""))
        for name, found in zip(names, hashes, strict=True)
    )
    if num_hashes:
        _logger.warning(
            "Warning: %s ids are written as a SHA-1 and none is that of its"
            " pixels, as if every patch had been changed since.",
            f"{num_hashes:,}",
        )
    return False
