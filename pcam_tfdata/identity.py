"""Which id a patch gets: its source's name, or the hash of its pixels."""

import logging
from collections.abc import Sequence

from pcam_tfdata import faults, manifest, schema, sharding, shards, workers
from pcam_tfdata.sources import listing

CHECKS = ("auto", "always", "never")
_NUM_PROBES = 64
_TASK_PATCHES = 1024

_logger = logging.getLogger(__name__)


def names_are_hashes(patches: Sequence[listing.Patch], check_ids: str) -> bool:
    """Returns whether the names are to be the SHA-1 of the pixels.

    With `auto`, 64 patches spread over the source decide: one hit is enough.
    """
    if check_ids != "auto":
        return check_ids == "always"
    named = sorted(
        (patch for patch in patches if schema.is_hash(patch.name)),
        key=lambda patch: patch.name,
    )
    num_probes = max(1, min(_NUM_PROBES, len(named)))
    bounds = sharding.shard_bounds(len(named), num_probes)
    probes = [named[place] for place in bounds[:-1] if named]
    hashes, _ = shards.hash_patches(probes)
    return any(
        patch.name == digest
        for patch, digest in zip(probes, hashes, strict=True)
    )


def hash_all(
    pool: workers.Workers, patches: Sequence[listing.Patch], check_ids: str
) -> tuple[dict[str, str], list[faults.Fault]]:
    """Returns the SHA-1 of each patch's pixels, by path, and the bad patches.

    With `auto` a name that is no hash is a fault as soon as another one is; if
    none is, a log line says so. With `always` any is a fault.
    """
    tasks = [
        patches[start : start + _TASK_PATCHES]
        for start in range(0, len(patches), _TASK_PATCHES)
    ]
    parts = pool.map(
        shards.hash_patches,
        tasks,
        num_patches=len(patches),
        description="hash",
    )
    hashes = [digest for part, _ in parts for digest in part]
    bad = [fault for _, part in parts for fault in part]
    read = [
        (patch, digest)
        for patch, digest in zip(patches, hashes, strict=True)
        if digest is not None
    ]
    if _must_match(read, check_ids):
        bad += [
            faults.Fault(patch.name, shards.mismatch(patch, digest))
            for patch, digest in read
            if patch.name != digest
        ]
        read = [pair for pair in read if pair[0].name == pair[1]]
    return {patch.path: digest for patch, digest in read}, bad


def _must_match(
    read: Sequence[tuple[listing.Patch, str]], check_ids: str
) -> bool:
    if check_ids != "auto":
        return check_ids == "always"
    if any(patch.name == digest for patch, digest in read):
        return True
    _logger.info(
        "No id is the SHA-1 of its pixels: the records get hashes for ids, %s"
        " keeps the source's names.",
        manifest.SIDECAR_FILE,
    )
    num_hashes = sum(schema.is_hash(patch.name) for patch, _ in read)
    if num_hashes:
        _logger.warning(
            "Warning: %s ids are written as a SHA-1 and none is that of its"
            " pixels, as if every patch had been changed since.",
            f"{num_hashes:,}",
        )
    return False
