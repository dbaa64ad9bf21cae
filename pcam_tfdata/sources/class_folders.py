"""Class folders of TIFF, PNG, JPEG, BMP or WebP images:

0/*.jpg 1/*.jpg                            dealt into folds
train/0/*.jpg train/1/*.jpg valid/0/...    each a split of its own
test/*.jpg                                 a split without labels
"""

import logging
import os
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.sources import listing, scan_folder
from pcam_tfdata.system import faults, files, name_arrays

DEALT = "train"
_OFFICIAL = {"valid": "validation", "val": "validation"}
_ORDER_SEED = 0

_logger = logging.getLogger(__name__)


def list_patches(
    options: listing.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns the splits of a folder in order of their names.

    Patches are in an order that follows from their names, paths within the
    folder, and mixes the classes. `valid` and `val` become `validation`. What
    is left aside beside class folders or splits is told in a warning.

    Returns:
        The patches, and files that are left out: links, bad names.

    Raises:
        FileNotFoundError, ValueError: there are no such folders, or no image.
    """
    if len(set(map(os.path.normpath, options.class_folders))) != 2:
        raise ValueError(
            f"--class_folders: found {','.join(options.class_folders)!r},"
            " expected two folders, of label 0 and of label 1, as in 0,1."
        )
    if not files.is_folder(options.input_dir):
        raise FileNotFoundError(
            f"{options.input_dir}: not found, expected a folder of images."
            " Check --input_dir."
        )
    ours_of = {"": DEALT}
    if not _has_classes(options, ""):
        with files.scan(options.input_dir) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir())
        ours_of = {
            theirs: _OFFICIAL.get(theirs, theirs)
            for theirs in folders
            if not theirs.startswith(".")
        }
        _warn_of_others(options.input_dir, [*ours_of])
    splits = [
        _list_split(options, theirs, ours) for theirs, ours in ours_of.items()
    ]
    listings = [patches for patches, _ in splits if len(patches)]
    _check_splits(options, listings)
    return listings, [fault for _, bad in splits for fault in bad]


def _check_splits(
    options: listing.SourceOptions, listings: list[listing.Listing]
) -> None:
    if not any(patches.labeled for patches in listings):
        raise ValueError(
            f"{options.input_dir}: found no patch in class folders"
            f" {' and '.join(options.class_folders)}, expected some there or in"
            " folders of splits. Check --input_dir and --class_folders."
        )
    names = [patches.split for patches in listings]
    for name in names:
        if names.count(name) > 1 or not name.isidentifier():
            raise ValueError(
                f"{options.input_dir}: found a split {name!r}, expected names"
                " of letters and digits, each once. Rename the folder."
            )


def _list_split(
    options: listing.SourceOptions, theirs: str, ours: str
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns the patches of class folders, or of a folder without any."""
    label_of = {theirs: schema.UNLABELED}
    if _has_classes(options, theirs):
        folder = os.path.join(options.input_dir, theirs)
        _warn_of_others(folder, options.class_folders)
        label_of = {
            os.path.join(theirs, name): label
            for label, name in enumerate(options.class_folders)
        }
    folders = [
        scan_folder.list_files(
            os.path.join(options.input_dir, part), options.follow_symlinks
        )
        for part in label_of
    ]
    names = np.concatenate(
        [
            np.strings.add(os.path.join(part, "").encode(), folder.images.files)
            for part, folder in zip(label_of, folders, strict=True)
        ]
    )
    labels = np.repeat(
        [*label_of.values()], [len(folder.names) for folder in folders]
    )
    stamps = np.concatenate([folder.images.stamps for folder in folders])
    images = listing.ImageFiles(options.input_dir, names, stamps)
    patches = listing.Listing(
        split=ours,
        labels=labels.astype(np.int8),
        names=names,
        images=images,
        is_dealt=not theirs,
    ).take(name_arrays.shuffle(names, _ORDER_SEED))
    return patches, [fault for folder in folders for fault in folder.faults]


def _has_classes(options: listing.SourceOptions, split: str) -> bool:
    return all(
        files.is_folder(os.path.join(options.input_dir, split, name))
        for name in options.class_folders
    )


def _warn_of_others(folder: str, read: Sequence[str]) -> None:
    """Says in one line what of a folder is not read, hidden files aside."""
    tops = {os.path.normpath(name).split(os.sep)[0] for name in read}
    others = [
        name
        for name in sorted(files.list_names(folder))
        if name not in tops and not name.startswith(".")
    ]
    if others:
        _logger.warning(
            "Warning: %s: left aside %s files or folders (%s), since only what is"
            " in %s is read.",
            os.path.join(folder, ""), f"{len(others):,}",
            faults.show(", ".join(others)), " and ".join(read) or "folders",
        )  # fmt: skip
