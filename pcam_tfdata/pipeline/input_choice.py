"""Which input mode is taken, and whether memory has room for it."""

from collections.abc import Sequence

from pcam_tfdata import choices
from pcam_tfdata.pipeline import mode_base
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import files

# Of main memory: other programs grow, and so does this one.
_MEMORY_SHARE = 0.8
_MEGABYTE = 1 << 20


def choose(
    source: mode_base.Source,
    selection: records_folder.Selection,
    devices: Sequence[str],
    free_memory: int | None,
) -> tuple[str, str]:
    """Returns the input mode and the reason.

    `auto` follows from where the records are alone: two input modes may give
    two orders of patches, so what else the machine does must not choose one.

    Args:
        source: What is asked for.
        selection: Its shards.
        devices: Devices of the replicas.
        free_memory: Bytes of main memory, or None if not known. That of GPUs is
            TensorFlow's to give: see `device_mode.ResidentPatches`.

    Raises:
        ValueError: it is not possible.
    """
    if source.input not in choices.INPUTS:
        raise ValueError(
            f"found input {source.input!r}, expected one of"
            f" {', '.join(choices.INPUTS)}."
        )
    is_remote = any(files.is_remote(shard.path) for shard in selection.shards)
    mode, reason = source.input, "as asked"
    if mode == "auto" and is_remote:
        mode, reason = "stream", "the records are not on a disk"
    elif mode == "auto":
        mode, reason = "mmap", "the records are on a disk"
    elif mode != "stream" and is_remote:
        raise ValueError(
            f"--input={source.input}: found records that are not on a disk,"
            " expected files. Take stream."
        )
    needed, advice = _count_bytes(mode, source, selection, devices)
    if free_memory is not None and needed > free_memory * _MEMORY_SHARE:
        raise ValueError(
            f"--input={source.input}: found {free_memory / _MEGABYTE:,.0f} MiB"
            f" of free memory, expected more than the {needed / _MEGABYTE:,.0f}"
            f" MiB that {mode} takes. {advice}"
        )
    return mode, reason


def _count_bytes(
    mode: str,
    source: mode_base.Source,
    selection: records_folder.Selection,
    devices: Sequence[str],
) -> tuple[int, str]:
    """Returns the memory that a mode takes, and what to do if it is too much."""
    if mode == "stream":
        buffer = source.shuffle_megabytes * _MEGABYTE
        needed = min(buffer, selection.num_bytes)
        if source.cache == "memory":
            needed += selection.num_bytes
        return needed, "Lower --shuffle_megabytes, or pass --cache=none."
    if mode == "device":
        sizes: dict[str, int] = {}
        for shard in selection.shards:
            sizes[shard.split] = sizes.get(shard.split, 0) + shard.num_bytes
        on_gpus = any("GPU" in name.upper() for name in devices)
        num_copies = 0 if on_gpus else max(1, len(devices))
        # TensorFlow copies what it is given, on its way to a device.
        needed = 2 * max(sizes.values()) + num_copies * selection.num_bytes
        return needed, "Take mmap."
    return 0, ""
