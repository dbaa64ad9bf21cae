"""Times the plan of a conversion over a made-up listing, and its memory.

No pixels: names are random hashes, on as many slides as asked for.
"""

import binascii
import resource
import time

import numpy as np
from absl import app, flags

from pcam_tfdata import schema
from pcam_tfdata.conversion import plan
from pcam_tfdata.records import tfrecord
from pcam_tfdata.sources import listing

_NUM_PATCHES = flags.DEFINE_integer("num_patches", 10_000_000, "Patches.")
_NUM_SLIDES = flags.DEFINE_integer(
    "num_slides", 0, "Slides; 0: none are known, and folds are by patch."
)
_SHARD_BYTES = 256_000_000


def main(_: list[str]) -> None:
    """Prints seconds and the peak of the process' memory."""
    patches = make_listing(_NUM_PATCHES.value, _NUM_SLIDES.value)
    before = _peak_megabytes()
    start = time.perf_counter()
    splits = plan.plan_splits(
        [patches],
        [patches.names],
        num_folds=5,
        seed=0,
        shard_bytes=_SHARD_BYTES,
    )
    seconds = time.perf_counter() - start
    num_shards = sum(split.num_shards for split in splits)
    largest = max(len(split.rows) for split in splits)
    print(
        f"{len(patches):,} patches on {_NUM_SLIDES.value:,} slides: planned in"
        f" {seconds:.1f} s, {num_shards:,} shards of"
        f" {tfrecord.layout(labeled=True).record_bytes:,}-byte records, largest"
        f" fold {largest:,}; peak {_peak_megabytes():,.0f} MB, of which the"
        f" listing took {before:,.0f} MB"
    )


def make_listing(num_patches: int, num_slides: int) -> listing.Listing:
    """Returns patches of random names."""
    draw = np.random.default_rng(0)
    digits = binascii.hexlify(draw.bytes(num_patches * schema.ID_BYTES // 2))
    names = np.frombuffer(digits, f"S{schema.ID_BYTES}")
    slides = None
    if num_slides:
        known = np.array([b"slide_%06d" % n for n in range(num_slides)])
        slides = known[draw.integers(0, num_slides, num_patches, np.int32)]
    return listing.Listing(
        split="train",
        labels=draw.integers(0, 2, num_patches, np.int8),
        names=names,
        images=listing.ImageFiles("train", names),
        slides=slides,
        is_dealt=True,
    )


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


if __name__ == "__main__":
    app.run(main)
