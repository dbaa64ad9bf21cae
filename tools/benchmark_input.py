"""Prints the patches/s of the ways in, interleaved, beside a plain gather.

The limit is `array[permutation[i : i + B]]` on one array in RAM.
"""

import statistics
import time
from collections.abc import Iterator

import numpy as np
from absl import app, flags

from pcam_tfdata import manifest, pipeline, schema

_RECORDS_DIR = flags.DEFINE_string("records_dir", None, "Records folder.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 512, "Patches a batch.")
_NUM_BATCHES = flags.DEFINE_integer("num_batches", 60, "Batches a repeat.")
_NUM_REPEATS = flags.DEFINE_integer("num_repeats", 7, "Repeats.")
_WARM_UP = 10


def main(_: list[str]) -> None:
    """Prints the median and range of every way in."""
    content = manifest.read(_RECORDS_DIR.value)
    splits = [split.name for split in content.splits if split.labeled]
    num_patches = sum(s.num_records for s in content.select(splits))
    streams = {
        name: iter(
            pipeline.train_batches(
                pipeline.Source(_RECORDS_DIR.value, splits, name),
                batch_size=_BATCH_SIZE.value,
                seed=0,
                first_step=0,
                num_steps=1 << 40,
            )
        )
        for name in ("mmap", "stream")
    }
    streams["limit"] = _plain_gather(num_patches)
    rates: dict[str, list[float]] = {name: [] for name in streams}
    for stream in streams.values():
        for _ in range(_WARM_UP):
            next(stream)
    for _ in range(_NUM_REPEATS.value):
        for name, stream in streams.items():
            rates[name].append(_rate(stream))
    print(f"{num_patches:,} patches, batch {_BATCH_SIZE.value}; patches/s:")
    for name, found in rates.items():
        print(
            f"{name:<8}median {statistics.median(found):>10,.0f}"
            f"  min {min(found):>10,.0f}  max {max(found):>10,.0f}"
        )


def _rate(stream: Iterator) -> float:
    # The pipeline has run ahead while others were timed.
    for _ in range(_WARM_UP):
        next(stream)
    start = time.perf_counter()
    for _ in range(_NUM_BATCHES.value):
        next(stream)
    seconds = time.perf_counter() - start
    return _NUM_BATCHES.value * _BATCH_SIZE.value / seconds


def _plain_gather(num_patches: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (num_patches, *schema.IMAGE_SHAPE), np.uint8)
    while True:
        order = rng.permutation(num_patches)
        for start in range(0, num_patches, _BATCH_SIZE.value):
            yield array[order[start : start + _BATCH_SIZE.value]]


if __name__ == "__main__":
    flags.mark_flag_as_required("records_dir")
    app.run(main)
