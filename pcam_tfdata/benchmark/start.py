"""Seconds from asking for batches to having the first."""

import gc
import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from pcam_tfdata.benchmark import configuration, feeds, machine, results

_WARM_UP = 2
_PAUSE_SECONDS = 0.3
_COLUMNS = ("", "seconds", "min-max", "ratio to limit")
_LIMIT = "limit: TFRecordDataset, one batch"
_OWN = "mmap"


def run(options: configuration.BenchmarkOptions) -> results.Report:
    """Times the first batch in this process, a fresh dataset each time."""
    data = configuration.find_data(options)
    feeds.hide_gpus()
    seconds = _measure(
        {
            _LIMIT: lambda: _read_batch(data),
            _OWN: lambda: feeds.train_batches(data, feeds.open_patches(data)),
        },
        options.num_repeats,
    )
    rows = [
        {
            "name": name,
            "seconds": statistics.median(found),
            "seconds_min": min(found),
            "seconds_max": max(found),
            "ratio_to_limit": statistics.median(
                each / limit
                for each, limit in zip(found, seconds[_LIMIT], strict=True)
            ),
        }
        for name, found in seconds.items()
    ]
    parameters = {"what": options.what, "repeats": options.num_repeats}
    return results.Report(
        machine.describe(),
        machine.list_versions(),
        parameters | data.parameters(),
        rows,
        results.format_table([_COLUMNS, *map(_cells, rows)]),
    )


def _measure(
    ways: dict[str, Callable[[], tf.data.Dataset]], num_repeats: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_WARM_UP + num_repeats):
        for name, make in ways.items():
            # Nothing of the one before goes on in the background.
            gc.collect()
            time.sleep(_PAUSE_SECONDS)
            start = time.perf_counter()
            next(iter(make()))
            seconds[name].append(time.perf_counter() - start)
    return {name: found[_WARM_UP:] for name, found in seconds.items()}


def _read_batch(data: configuration.Data) -> tf.data.Dataset:
    ds = tf.data.TFRecordDataset(feeds.list_shards(data))
    return ds.batch(data.batch_size)


def _cells(row: dict[str, object]) -> list[str]:
    return [
        row["name"],
        f"{row['seconds']:.4f}",
        f"{row['seconds_min']:.4f}-{row['seconds_max']:.4f}",
        f"{row['ratio_to_limit']:.3f}",
    ]
