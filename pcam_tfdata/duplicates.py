"""Patches of equal pixels, which have equal ids, in a records folder."""

import os

import numpy as np

from pcam_tfdata import manifest, schema, tables

_FOLDS = "train"


def describe(records_dir: str) -> list[str]:
    """Returns a line for each two parts of the data that share pixels.

    The folds are one part: equal pixels share a fold. Copies within a part are
    one line too.
    """
    parts = {
        name: np.unique(ids, return_counts=True)
        for name, ids in _read_ids(records_dir).items()
    }
    lines = []
    for name, (_, counts) in parts.items():
        if num_copies := int((counts - 1).sum()):
            lines.append(
                f"{num_copies:,} patches of {name} have the pixels of another"
                " one there."
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


def _read_ids(records_dir: str) -> dict[str, np.ndarray]:
    """Returns the ids of each part, bytes [num_patches]."""
    content = manifest.read(records_dir)
    path = os.path.join(records_dir, manifest.SIDECAR_FILE)
    num_patches = sum(split.num_records for split in content.splits)
    rows = tables.iterate_csv(path, ("id",))
    ids = np.fromiter(
        (patch_id for (patch_id,) in rows),
        f"S{schema.ID_BYTES}",
        num_patches,
    )
    ends = np.cumsum([split.num_records for split in content.splits])
    parts: dict[str, list[np.ndarray]] = {}
    for split, found in zip(
        content.splits, np.split(ids, ends[:-1]), strict=True
    ):
        name = _FOLDS if split.name.startswith("fold") else split.name
        parts.setdefault(name, []).append(found)
    return {name: np.concatenate(found) for name, found in parts.items()}
