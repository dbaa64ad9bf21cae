"""Which way in: from the sizes of the data and of the machine."""

import dataclasses
import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence

from pcam_tfdata import choices, files
from pcam_tfdata.pipeline import selection

# Of the memory of a GPU; the rest is for weights and activations.
_DEVICE_SHARE = 0.5
# Of main memory: other programs grow, and so does this one.
_MEMORY_SHARE = 0.8
# Slower than an NVMe drive, faster than a network or a disk that turns.
_RANDOM_READ_SECONDS = 0.0005
_NUM_READS = 64
# Only Linux tells it of a thread.
_WHOSE = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
_MEGABYTE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Demand:
    """What is asked for.

    Attributes:
        input: One of `choices.INPUTS`.
        data_bytes: Of the selected shards.
        largest_split_bytes: Of the largest selected split.
        shuffle_bytes: Of the shuffle buffer of `stream`.
        cache_in_memory: Whether `stream` is to keep the records in memory.
        is_remote: Whether the shards are not on a disk.
    """

    input: str
    data_bytes: int
    largest_split_bytes: int
    shuffle_bytes: int
    cache_in_memory: bool = False
    is_remote: bool = False


@dataclasses.dataclass(frozen=True)
class Machine:
    """What there is.

    Attributes:
        free_memory: Bytes, or None if not known.
        free_device_memory: Bytes of each GPU, or None if there is none or it
            is not known.
        num_cpu_replicas: Replicas on the CPU; their memory is the machine's.
    """

    free_memory: int | None
    free_device_memory: Sequence[int] | None = None
    num_cpu_replicas: int = 0


def choose(
    demand: Demand, machine: Machine, probe: Callable[[], float]
) -> tuple[str, str]:
    """Returns the way in and the reason.

    Args:
        demand: What is asked for.
        machine: What there is.
        probe: Returns the seconds that a read of a random record takes.

    Raises:
        ValueError: the way asked for is not possible.
    """
    if demand.input not in choices.INPUTS:
        raise ValueError(
            f"found input {demand.input!r}, expected one of"
            f" {', '.join(choices.INPUTS)}."
        )
    if demand.input == "auto":
        return _choose_freely(demand, machine, probe)
    problem = {
        "mmap": _mmap_problem,
        "stream": _stream_problem,
        "device": _device_problem,
    }[demand.input](demand, machine)
    if problem:
        raise ValueError(f"--input={demand.input}: {problem}")
    return demand.input, "as asked"


def _choose_freely(
    demand: Demand, machine: Machine, probe: Callable[[], float]
) -> tuple[str, str]:
    data = _megabytes(demand.data_bytes)
    if demand.is_remote:
        problem = _stream_problem(demand, machine)
        if problem:
            raise ValueError(f"--input=auto: {problem}")
        return "stream", "the records are not on a disk"
    if machine.free_device_memory:
        least = min(machine.free_device_memory)
        if not _device_problem(demand, machine):
            return "device", f"{data} fit into {_megabytes(least)} of every GPU"
    seconds = probe()
    took = f"a random read took {seconds * 1e3:.2f} ms"
    if seconds <= _RANDOM_READ_SECONDS:
        return "mmap", f"{took}, so {data} need no reading in order"
    problem = _stream_problem(demand, machine)
    if problem:
        return "mmap", f"{took}, but stream is not possible: {problem}"
    return "stream", f"{took}, so {data} are read in order"


def probe(selected: selection.Selection) -> float:
    """Returns the mean seconds of a read of a random record, from disk or cache.

    Reads in which another program had the processor say nothing of the disk.
    """
    draw = random.Random()  # Nobody's seeded numbers change.
    places = [
        (shard, draw.randrange(shard.num_records))
        for shard in draw.choices(
            selected.shards,
            [shard.num_records for shard in selected.shards],
            k=_NUM_READS,
        )
    ]
    seconds, undisturbed = [], []
    for shard, record in places:
        before = _count_preemptions()
        start = time.perf_counter()
        shard.read_record(record)
        seconds.append(time.perf_counter() - start)
        if _count_preemptions() == before:
            undisturbed.append(seconds[-1])
    return statistics.fmean(undisturbed or seconds)


def _count_preemptions() -> int:
    """Returns how often this thread has lost the processor, not by waiting."""
    return resource.getrusage(_WHOSE).ru_nivcsw


def is_remote(selected: selection.Selection) -> bool:
    """Returns whether shards are not on a disk."""
    return any(files.is_remote(shard.path) for shard in selected.shards)


def _mmap_problem(demand: Demand, _: Machine) -> str | None:
    if demand.is_remote:
        return (
            "found records that are not on a disk, expected files. Take stream."
        )
    return None


def _stream_problem(demand: Demand, machine: Machine) -> str | None:
    if machine.free_memory is None:
        return None
    needed = demand.shuffle_bytes
    if demand.cache_in_memory:
        needed += demand.data_bytes
    if needed <= machine.free_memory * _MEMORY_SHARE:
        return None
    return (
        f"found {_megabytes(machine.free_memory)} of free memory, expected more"
        f" than the {_megabytes(needed)} of its buffer and cache. Lower"
        " --shuffle_megabytes, or pass --cache=none."
    )


def _device_problem(demand: Demand, machine: Machine) -> str | None:
    if demand.is_remote:
        return (
            "found records that are not on a disk, expected files. Take stream."
        )
    # TensorFlow copies what it is given, on its way to a device.
    host_bytes = 2 * demand.largest_split_bytes
    host_bytes += machine.num_cpu_replicas * demand.data_bytes
    free = machine.free_memory
    if free is not None and host_bytes > free * _MEMORY_SHARE:
        return (
            f"found {_megabytes(free)} of free memory, expected more than"
            f" {_megabytes(host_bytes)}. Take mmap."
        )
    if machine.num_cpu_replicas:
        return None
    if not machine.free_device_memory:
        return (
            "could not learn from nvidia-smi how much memory the GPUs have"
            " free. Take mmap."
        )
    least = min(machine.free_device_memory)
    if demand.data_bytes > least * _DEVICE_SHARE:
        return (
            f"found {_megabytes(least)} free on a GPU, expected twice the"
            f" {_megabytes(demand.data_bytes)} of the patches. Take mmap."
        )
    return None


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / _MEGABYTE:,.0f} MiB"
