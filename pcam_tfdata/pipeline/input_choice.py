"""Opens patches in an input mode, if memory has room for it.

`mmap` maps the shards and gathers each batch: the page cache is its cache.
`stream` reads them as TFRecords, for disks and networks that are slow at random
access: it shuffles within a buffer, and its first_step costs reading up to there.
`device` holds all patches on each replica and gathers there. `mmap` and `device`
give the same batches. `auto` is `mmap` for a folder and `stream` for a URL.
"""

from collections.abc import Sequence

from pcam_tfdata import schema
from pcam_tfdata.pipeline import (
    device_mode,
    mmap_mode,
    patch_source,
    stream_mode,
)
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import files, memory

# Of main memory: other programs grow, and so does this one.
_MEMORY_SHARE = 0.8
_MEGABYTE = 1 << 20


def open_patches(
    source: patch_source.Source, devices: Sequence[str] = ()
) -> patch_source.Patches:
    """Returns the patches of a source, ready to be read in batches.

    Args:
        source: Which patches.
        devices: Devices of the replicas, for `device`; none for the CPU.

    Raises:
        FileNotFoundError, ValueError: records are not there or damaged, or do
            not fit the input mode.
    """
    stream_mode.refuse_unreadable(source.records)
    selection = source.records.select_patches(source.splits)
    mode, reason = choose(source, selection, devices, memory.free_memory())
    patches: patch_source.Patches
    if mode == "stream":
        patches = stream_mode.StreamedPatches(source, selection)
    elif mode == "mmap":
        patches = mmap_mode.MappedPatches(source, selection)
    else:
        patches = device_mode.ResidentPatches(source, selection, devices)
    patches.plan = f"{mode}, {reason}"
    return patches


def resolve_mode(mode: str, *, is_remote: bool) -> str:
    """Returns the input mode that one of `choices.INPUTS` stands for."""
    if mode != "auto":
        return mode
    return "stream" if is_remote else "mmap"


def choose(
    source: patch_source.Source,
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
    is_remote = any(files.is_remote(shard.path) for shard in selection.shards)
    asked = source.options.input
    mode = resolve_mode(asked, is_remote=is_remote)
    reason = "as asked"
    if asked == "auto":
        reason = f"the records are {'not ' if is_remote else ''}on a disk"
    elif asked != "stream" and is_remote:
        raise ValueError(
            f"--input={asked}: found records that are not on a disk, expected"
            " files. Take stream."
        )
    needed, advice = _count_bytes(mode, source.options, selection, devices)
    if free_memory is not None and needed > free_memory * _MEMORY_SHARE:
        raise ValueError(
            f"--input={asked}: found {free_memory / _MEGABYTE:,.0f} MiB of free"
            f" memory, expected more than the {needed / _MEGABYTE:,.0f} MiB that"
            f" {mode} takes. {advice}"
        )
    return mode, reason


def _count_bytes(
    mode: str,
    options: patch_source.InputOptions,
    selection: records_folder.Selection,
    devices: Sequence[str],
) -> tuple[int, str]:
    """Returns the memory that a mode takes, and what to do if it is too much."""
    all_bytes = selection.num_patches * schema.IMAGE_BYTES
    if mode == "stream":
        needed = min(options.shuffle_megabytes * _MEGABYTE, all_bytes)
        if options.cache == "memory":
            needed += all_bytes
        return needed, "Lower --shuffle_megabytes, or pass --cache=none."
    if mode == "device":
        piece = device_mode.PIECE_PATCHES * schema.IMAGE_BYTES
        on_gpus = any("GPU" in name.upper() for name in devices)
        num_copies = 0 if on_gpus else max(1, len(devices))
        # TensorFlow copies what it is given, on its way to a device.
        needed = 2 * min(piece, all_bytes) + num_copies * all_bytes
        return needed, "Take mmap."
    return 0, ""
