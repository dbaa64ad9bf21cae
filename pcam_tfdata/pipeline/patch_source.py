"""Batches of patches from a records folder, as tf.data.

Training is one endless stream of positions. With global batch size B and N
patches, step s holds the positions s*B .. s*B + B - 1; position p is the patch
`permutation of epoch p // N` at `p mod N`. Which patches a step sees follows
from (seed, step) alone, so resuming is a counter. Batches straddle epochs: none
is short and no patch is dropped.

A batch is a dict, and every component has the batch axis:

    image  uint8 [B, 96, 96, 3]
    label  int64 [B], 0 or 1, -1 where unlabelled
    row    int64 [B], row of the sidecar
    mask   bool [B], evaluation only: False for the padding of the last batch

Three input modes give it. `mmap` maps the shards and gathers each batch: the
page cache is its cache. `stream` reads them as TFRecords, for disks and networks
that are slow at random access: it shuffles within a buffer, and its first_step
costs reading up to there. `device` holds all patches on each replica and gathers
there. `mmap` and `device` give the same batches. `auto` is `mmap` for a folder
and `stream` for a URL.
"""

from collections.abc import Sequence

import tensorflow as tf

from pcam_tfdata.pipeline import (
    device_mode,
    input_choice,
    mmap_mode,
    stream_mode,
)
from pcam_tfdata.pipeline.batch_format import (
    Batch,
    Portion,
    fit_batch_size,
    whole,
)
from pcam_tfdata.pipeline.image_files import ImageFiles
from pcam_tfdata.pipeline.mode_base import Patches, Source, damage_named
from pcam_tfdata.system import memory

__all__ = [
    "Batch",
    "ImageFiles",
    "Patches",
    "Portion",
    "Source",
    "damage_named",
    "eval_batches",
    "fit_batch_size",
    "open_patches",
    "train_batches",
    "whole",
]


def open_patches(source: Source, devices: Sequence[str] = ()) -> Patches:
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
    mode, reason = input_choice.choose(
        source, selection, devices, memory.free_memory()
    )
    patches: Patches
    if mode == "stream":
        patches = stream_mode.StreamedPatches(source, selection)
    elif mode == "mmap":
        patches = mmap_mode.MappedPatches(source, selection)
    else:
        patches = device_mode.ResidentPatches(source, selection, devices)
    patches.plan = f"{mode}, {reason}"
    if mode != "stream" and source.cache != "none":
        patches.plan += "; it needs no --cache"
    return patches


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    num_steps: int,
) -> tf.data.Dataset:
    """Returns shuffled batches with images; see `Patches.train_batches`.

    Raises:
        FileNotFoundError, ValueError: as in `open_patches`.
    """
    patches = open_patches(source)
    ds = patches.train_batches(
        batch_size=batch_size,
        seed=seed,
        first_step=first_step,
        num_steps=num_steps,
    )
    return _fill(ds, patches)


def eval_batches(source: Source, *, batch_size: int) -> tf.data.Dataset:
    """Returns every patch once, with images; see `Patches.eval_batches`.

    Raises:
        FileNotFoundError, ValueError: as in `open_patches`.
    """
    patches = open_patches(source)
    return _fill(patches.eval_batches(batch_size=batch_size), patches)


def _fill(ds: tf.data.Dataset, patches: Patches) -> tf.data.Dataset:
    if patches.input == "device":
        return ds.map(patches.fill).prefetch(1)
    return ds
