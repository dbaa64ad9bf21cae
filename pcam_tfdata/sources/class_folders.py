"""Class folders of images, of any kind that Pillow reads:

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
from pcam_tfdata.system import faults, files, name_arrays, remote

DEALT = "train"
_OFFICIAL = {"valid": "validation", "val": "validation"}
_ORDER_SEED = 0
_MAX_SHOWN = 3

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
    _check_names(options.class_folders)
    if not files.is_folder(options.input_dir):
        raise FileNotFoundError(
            f"{options.input_dir}: not found, expected a folder of images."
            " Check --input_dir."
        )
    if _has_classes(options, ""):
        patches, bad = _list_split(options, "", DEALT)
        return [patches], bad
    folders, others = _list_entries(options.input_dir)
    _warn_of_aside(options.input_dir, [], others, "its folders")
    splits = [
        _list_split(options, theirs, _OFFICIAL.get(theirs, theirs))
        for theirs in folders
    ]
    listings = [patches for patches, _ in splits if len(patches)]
    _check_splits(options, listings)
    return listings, [fault for _, bad in splits for fault in bad]


def _check_names(class_folders: Sequence[str]) -> None:
    if len(set(map(os.path.normpath, class_folders))) != 2:
        raise _no_two_folders(class_folders)
    for name in class_folders:
        if not name.isprintable():
            raise ValueError(
                f"--class_folders: found {faults.show(name)}, expected"
                " names of letters that print. Rename the folder."
            )


def _no_two_folders(class_folders: Sequence[str]) -> ValueError:
    return ValueError(
        f"--class_folders: found {','.join(class_folders)!r}, expected two"
        " folders, of label 0 and of label 1, as in 0,1."
    )


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
    parts, part_labels = [theirs], [schema.UNLABELED]
    if _has_classes(options, theirs):
        _check_classes(options, theirs)
        parts = [os.path.join(theirs, name) for name in options.class_folders]
        part_labels = [schema.NEGATIVE, schema.POSITIVE]
    folders = [
        scan_folder.list_files(
            os.path.join(options.input_dir, part),
            follow_symlinks=options.follow_symlinks,
        )
        for part in parts
    ]
    names = np.concatenate(
        [
            np.strings.add(os.path.join(part, "").encode(), folder.images.files)
            for part, folder in zip(parts, folders, strict=True)
        ]
    )
    labels = np.repeat(part_labels, [len(folder.names) for folder in folders])
    stamps = [
        folder.images.stamps
        for folder in folders
        if folder.images.stamps is not None
    ]
    order = name_arrays.shuffle(names, _ORDER_SEED)
    patches = listing.Listing(
        split=ours,
        labels=labels.astype(np.int8)[order],
        names=names[order],
        images=listing.ImageFiles(
            options.input_dir,
            names[order],
            np.concatenate(stamps)[order] if stamps else None,
        ),
        is_dealt=not theirs,
    )
    return patches, [fault for folder in folders for fault in folder.faults]


def _has_classes(options: listing.SourceOptions, split: str) -> bool:
    return all(
        files.is_folder(os.path.join(options.input_dir, split, name))
        for name in options.class_folders
    )


def _check_classes(options: listing.SourceOptions, split: str) -> None:
    """Refuses classes that are one folder; warns of what is beside them."""
    folder = os.path.join(options.input_dir, split)
    names = options.class_folders
    if len({files.resolve(os.path.join(folder, name)) for name in names}) == 1:
        raise _no_two_folders(names)
    read = {os.path.normpath(name).split(os.sep)[0] for name in names}
    folders, others = _list_entries(folder)
    folders = [f"{name}/" for name in folders if name not in read]
    _warn_of_aside(folder, folders, others, " and ".join(names))


def _list_entries(folder: str) -> tuple[list[str], list[str]]:
    """Returns the names of folders and of all else in a folder, sorted.

    Hidden ones (`.name`) are passed over.
    """
    scan = remote.scan if files.is_remote(folder) else os.scandir
    folders: list[str] = []
    others: list[str] = []
    with scan(folder) as entries:
        for entry in entries:
            name = os.fsdecode(entry.name)
            if not name.startswith("."):
                (folders if entry.is_dir() else others).append(name)
    return sorted(folders), sorted(others)


def _warn_of_aside(
    folder: str, folders: Sequence[str], others: Sequence[str], read: str
) -> None:
    """Says in one line what of a folder is not read."""
    aside = [
        _count(names, kind)
        for names, kind in ((folders, "folders"), (others, "files"))
        if names
    ]
    if aside:
        _logger.warning(
            "Warning: %s: left aside %s, since only what is in %s is read.",
            os.path.join(folder, ""), " and ".join(aside), read,
        )  # fmt: skip


def _count(names: Sequence[str], kind: str) -> str:
    shown = ", ".join(map(faults.escape, names[:_MAX_SHOWN]))
    more = ", ..." if len(names) > _MAX_SHOWN else ""
    return f"{len(names):,} {kind} ({shown}{more})"
