"""What makes scores optimistic: pixels or slides on both sides of a split.

Patches of equal pixels have equal ids.
"""

import itertools
from collections.abc import Mapping

import numpy as np

from pcam_tfdata.records import records_folder

_FOLDS = "train"
# Digits of an id, a SHA-1, that are compared: among a billion, two ids that
# differ are the same in these with a chance of 3%, and they take eight bytes.
_KEY_DIGITS = 16


def describe_copies(records_dir: str) -> list[str]:
    """Returns a line for each two parts of the data that share pixels.

    The folds are one part. Copies within a part are one line too, and one says
    how many patches are in several folds: no conversion deals them so, but
    folders that are joined may have.
    """
    parts = _read_keys(records_dir)
    folds = [parts.pop(name) for name in [*parts] if name.startswith("fold")]
    if folds:
        parts = {_FOLDS: np.concatenate(folds)} | parts
    lines = [
        f"{num_copies:,} patches of {name} have the pixels of another one"
        " there."
        for name, keys in parts.items()
        if (num_copies := len(keys) - len(np.unique(keys)))
    ]
    if folds:
        once_a_fold = np.concatenate(list(map(np.unique, folds)))
        keys, num_folds = np.unique(once_a_fold, return_counts=True)
        in_several = np.isin(parts[_FOLDS], keys[num_folds > 1])
        if num_shared := int(in_several.sum()):
            lines.append(
                f"the pixels of {num_shared:,} {_FOLDS} patches are in several"
                " folds: validation will be optimistic. Convert parts that"
                " share patches as one."
            )
    for other, name in itertools.combinations(parts, 2):
        if num_shared := int(np.isin(parts[name], parts[other]).sum()):
            lines.append(
                f"the pixels of {num_shared:,} {name} patches are in {other}"
                " too."
            )
    return lines


def describe_slides(splits_of_slide: Mapping[str, set[str]]) -> list[str]:
    """Returns a line on slides that are in several splits, if there are any."""
    several = [
        slide
        for slide, splits in splits_of_slide.items()
        if slide and len(splits) > 1
    ]
    if not several:
        return []
    first = several[0]
    return [
        f"{len(several):,} slides are in several splits, as {first} in"
        f" {', '.join(sorted(splits_of_slide[first]))}: validation will be"
        " optimistic. Convert the parts that share slides as one."
    ]


def _read_keys(records_dir: str) -> dict[str, np.ndarray]:
    """Returns what tells the ids of each split apart: uint64 [num_patches]."""
    records = records_folder.open_folder(records_dir)
    ids = itertools.chain.from_iterable(
        block["id"] for block in records.iterate_sidecar(["id"])
    )
    return {
        split.name: np.fromiter(
            (int(patch_id[:_KEY_DIGITS], 16) for patch_id in ids),
            np.uint64,
            split.num_records,
        )
        for split in records.content.splits
    }
