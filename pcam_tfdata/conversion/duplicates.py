"""Patches of equal pixels, which have equal ids, in a records folder."""

import os
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.records import manifest
from pcam_tfdata.system import csv_files, name_arrays

_FOLDS = "train"
# Of an id, a SHA-1: among a billion, two that differ are the same in these with
# a chance of 3%, and an id takes eight bytes.
_KEY_DIGITS = 16


def describe(records_dir: str) -> list[str]:
    """Returns a line for each two parts of the data that share pixels.

    The folds are one part. Copies within a part are one line too, and one says
    how many patches are in several folds: no conversion deals them so, but
    folders that are joined may have.
    """
    splits = _read_keys(records_dir)
    folds = [keys for name, keys in splits.items() if _is_fold(name)]
    parts = {name: keys for name, keys in splits.items() if not _is_fold(name)}
    if folds:
        parts = {_FOLDS: np.concatenate(folds)} | parts
    parts = {
        name: np.unique(keys, return_counts=True)
        for name, keys in parts.items()
    }
    lines = []
    for name, (_, counts) in parts.items():
        if num_copies := int((counts - 1).sum()):
            lines.append(
                f"{num_copies:,} patches of {name} have the pixels of another"
                " one there."
            )
    if num_shared := _count_shared(folds):
        lines.append(
            f"the pixels of {num_shared:,} {_FOLDS} patches are in several"
            " folds: validation will be optimistic. Convert parts that share"
            " patches as one."
        )
    names = list(parts)
    for place, name in enumerate(names):
        for other in names[:place]:
            shared = np.isin(parts[name][0], parts[other][0])
            if num_shared := int(parts[name][1][shared].sum()):
                lines.append(
                    f"the pixels of {num_shared:,} {name} patches are in"
                    f" {other} too."
                )
    return lines


def _is_fold(split: str) -> bool:
    return split.startswith("fold")


def _count_shared(folds: Sequence[np.ndarray]) -> int:
    """Returns how many patches have a key that is in another fold too."""
    if len(folds) < 2:
        return 0
    keys = np.concatenate(folds)
    fold = np.repeat(np.arange(len(folds)), list(map(len, folds)))
    order = np.argsort(keys, kind="stable")  # So of one key by fold.
    starts = np.flatnonzero(name_arrays.mark_first(keys[order]))
    ends = np.append(starts[1:], len(keys))
    is_shared = fold[order[starts]] != fold[order[ends - 1]]
    return int((ends - starts)[is_shared].sum())


def _read_keys(records_dir: str) -> dict[str, np.ndarray]:
    """Returns what tells the ids of each split apart: uint64 [num_patches]."""
    content = manifest.read(records_dir)
    path = os.path.join(records_dir, manifest.SIDECAR_FILE)
    sizes = [split.num_records for split in content.splits]
    keys = np.fromiter(
        (
            int(patch_id[:_KEY_DIGITS], 16)
            for (patch_id,) in csv_files.iterate_csv(path, ("id",))
        ),
        np.uint64,
        sum(sizes),
    )
    names = [split.name for split in content.splits]
    found = np.split(keys, np.cumsum(sizes)[:-1])
    return dict(zip(names, found, strict=True))
