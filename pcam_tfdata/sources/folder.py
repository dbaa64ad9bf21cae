"""Class folders of images, of any kind that Pillow reads:

0/*.jpg 1/*.jpg                            dealt into folds
train/0/*.jpg train/1/*.jpg valid/0/...    each a split of its own
test/*.jpg                                 a split without labels
"""

import os

import numpy as np

from pcam_tfdata import faults, files, schema, sharding, sources
from pcam_tfdata.sources import image_folder, listing, plain_names

DEALT = "train"
_LABELS = (schema.NEGATIVE, schema.POSITIVE)
_OFFICIAL = {"valid": "validation", "val": "validation"}
_ORDER_SEED = 0


def list_patches(
    options: sources.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns the splits of a folder in order of their names.

    Patches are in an order that follows from their names, paths within the
    folder, and mixes the classes. `valid` and `val` become `validation`.

    Returns:
        The patches, and files that are left out: links, bad names.

    Raises:
        FileNotFoundError, ValueError: there are no such folders, or no image.
    """
    if len(set(options.class_folders)) != len(_LABELS):
        raise ValueError(
            f"--class_folders: found {','.join(options.class_folders)!r},"
            " expected two names, of label 0 and of label 1, as in 0,1."
        )
    for name in options.class_folders:
        if not name.isprintable():
            raise ValueError(
                f"--class_folders: found {plain_names.show(name)}, expected"
                " names of letters that print. Rename the folder."
            )
    if not files.is_folder(options.input_dir):
        raise FileNotFoundError(
            f"{options.input_dir}: not found, expected a folder of images. Check"
            " --input_dir."
        )
    if _has_classes(options, ""):
        made, found = _list_split(options, "", DEALT)
        return [made], found
    listings, found = [], []
    for theirs in sorted(_list_folders(options.input_dir)):
        ours = _OFFICIAL.get(theirs, theirs)
        made, more = _list_split(options, theirs, ours)
        found += more
        if len(made):
            listings.append(made)
    _check(options, listings)
    return listings, found


def _check(
    options: sources.SourceOptions, listings: list[listing.Listing]
) -> None:
    names = [made.split for made in listings]
    if not any(made.labeled for made in listings):
        raise ValueError(
            f"{options.input_dir}: found no patch in class folders"
            f" {' and '.join(options.class_folders)}, expected some there or in"
            " folders of splits. Check --input_dir and --class_folders."
        )
    for name in names:
        if names.count(name) > 1 or not name.isidentifier():
            raise ValueError(
                f"{options.input_dir}: found a split {name!r}, expected names of"
                " letters and digits, each once. Rename the folder."
            )


def _list_split(
    options: sources.SourceOptions, theirs: str, ours: str
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns the patches of class folders, or of a folder without any."""
    if _has_classes(options, theirs):
        parts = [
            (os.path.join(theirs, name), label)
            for name, label in zip(options.class_folders, _LABELS, strict=True)
        ]
    else:
        parts = [(theirs, schema.UNLABELED)]
    names, labels, found = [], [], []
    for part, label in parts:
        listed = image_folder.list_files(
            os.path.join(options.input_dir, part),
            follow_symlinks=options.follow_symlinks,
        )
        prefix = np.array(os.path.join(part, "").encode())
        names.append(np.strings.add(prefix, listed.files))
        labels.append(np.full(len(listed.files), label, np.int8))
        found += listed.faults
    all_names = np.concatenate(names)
    order = sharding.shuffle_names(all_names, _ORDER_SEED)
    made = listing.Listing(
        split=ours,
        labels=np.concatenate(labels)[order],
        names=all_names[order],
        images=listing.ImageFiles(options.input_dir, all_names[order]),
        is_dealt=not theirs,
    )
    return made, found


def _has_classes(options: sources.SourceOptions, split: str) -> bool:
    return all(
        files.is_folder(os.path.join(options.input_dir, split, name))
        for name in options.class_folders
    )


def _list_folders(folder: str) -> list[str]:
    return [
        name
        for name in files.list_names(folder)
        if not name.startswith(".")
        and files.is_folder(os.path.join(folder, name))
    ]
