"""Which way in, as asked or by where the records are; and if there is room."""

import dataclasses

from pcam_tfdata import choices
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import files

# Of main memory: other programs grow, and so does this one.
_MEMORY_SHARE = 0.8
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
        num_cpu_replicas: Replicas on the CPU; their memory is the machine's.
    """

    input: str
    data_bytes: int
    largest_split_bytes: int
    shuffle_bytes: int
    cache_in_memory: bool = False
    is_remote: bool = False
    num_cpu_replicas: int = 0


def choose(demand: Demand, free_memory: int | None) -> tuple[str, str]:
    """Returns the way in and the reason.

    `auto` follows from where the records are alone: two ways in may give two
    orders of patches, so what else the machine does must not choose one.

    Args:
        demand: What is asked for.
        free_memory: Bytes of main memory, or None if not known. That of GPUs is
            TensorFlow's to give: see `resident.ResidentPatches`.

    Raises:
        ValueError: it is not possible.
    """
    if demand.input not in choices.INPUTS:
        raise ValueError(
            f"found input {demand.input!r}, expected one of"
            f" {', '.join(choices.INPUTS)}."
        )
    chosen, reason = demand.input, "as asked"
    if demand.input == "auto":
        chosen, reason = "mmap", "the records are on a disk"
        if demand.is_remote:
            chosen, reason = "stream", "the records are not on a disk"
    problem = _find_problem(chosen, demand, free_memory)
    if problem:
        raise ValueError(f"--input={demand.input}: {problem}")
    return chosen, reason


def is_remote(selected: records_folder.Selection) -> bool:
    """Returns whether shards are not on a disk."""
    return any(files.is_remote(shard.path) for shard in selected.shards)


def _find_problem(
    chosen: str, demand: Demand, free_memory: int | None
) -> str | None:
    """Returns why a way in is not possible, or None if it is."""
    if chosen != "stream" and demand.is_remote:
        return (
            "found records that are not on a disk, expected files. Take stream."
        )
    needed, what, advice = 0, "", ""
    if chosen == "stream":
        needed = demand.shuffle_bytes
        if demand.cache_in_memory:
            needed += demand.data_bytes
        what = " of its buffer and cache"
        advice = "Lower --shuffle_megabytes, or pass --cache=none."
    elif chosen == "device":
        # TensorFlow copies what it is given, on its way to a device.
        needed = 2 * demand.largest_split_bytes
        needed += demand.num_cpu_replicas * demand.data_bytes
        advice = "Take mmap."
    if free_memory is None or needed <= free_memory * _MEMORY_SHARE:
        return None
    return (
        f"found {free_memory / _MEGABYTE:,.0f} MiB of free memory, expected more"
        f" than the {needed / _MEGABYTE:,.0f} MiB{what}. {advice}"
    )
