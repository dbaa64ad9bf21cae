"""Kaggle's folder: train/ID.tif, train_labels.csv, test/ID.tif and
sample_submission.csv."""

import dataclasses
import logging
import os

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.sources import catalog, label_table, listing, scan_folder
from pcam_tfdata.system import faults, files, name_arrays

TRAIN, TEST = "train", "test"
LABELS_FILE = "train_labels.csv"
SAMPLE_FILE = "sample_submission.csv"
_LAYOUT = f"{TRAIN}/, {LABELS_FILE}, {TEST}/, {SAMPLE_FILE}"

_logger = logging.getLogger(__name__)


def list_patches(
    options: catalog.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns train, to be dealt into folds, and test if there is any.

    See `list_train` and `list_test`.
    """
    train, found = list_train(
        options.input_dir,
        options.slide_csv,
        follow_symlinks=options.follow_symlinks,
    )
    test, more = list_test(
        options.input_dir, follow_symlinks=options.follow_symlinks
    )
    listings = [train, test] if len(test) else [train]
    return listings, found + more


def list_train(
    input_dir: str,
    slide_csv: str | None = None,
    *,
    follow_symlinks: bool = False,
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns the labelled patches in the order of their labels' file.

    Args:
        input_dir: Kaggle's folder.
        slide_csv: A file with the columns `id` and `slide` or `wsi`.
        follow_symlinks: See `image_folder.list_files`.

    Returns:
        The patches that can be used, and what is wrong with the others: see
        `label_table.read_labels` and `image_folder.list_files`; a row without a
        file or a file without a row; no slide.

    Raises:
        FileNotFoundError, ValueError: a folder, file or column is missing.
    """
    path = os.path.join(input_dir, LABELS_FILE)
    _require(files.is_file(path), path)
    folder = _list_folder(input_dir, TRAIN, follow_symlinks)
    patches, found = _join(folder, path, label_table.read_labels(path))
    patches = dataclasses.replace(patches, is_dealt=True)
    if slide_csv is None:
        return patches, found
    patches, more = _place(patches, slide_csv)
    return patches, found + more


def list_test(
    input_dir: str, *, follow_symlinks: bool = False
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns the unlabelled patches in the order of sample_submission.csv.

    Without that file they are in the order of their names; without a `test`
    folder there are none.

    Returns:
        The patches that can be used, and what is wrong with the others.
    """
    path = os.path.join(input_dir, SAMPLE_FILE)
    has_sample = files.is_file(path)
    if not has_sample and not files.is_folder(os.path.join(input_dir, TEST)):
        _logger.info("%s: no %s/, so no test split.", input_dir, TEST)
        return _list_all(None), []
    folder = _list_folder(input_dir, TEST, follow_symlinks)
    if has_sample:
        patches, found = _join(folder, path, label_table.read_names(path))
        return dataclasses.replace(patches, split=TEST), found
    _logger.info("%s: not there, test is in order of name.", path)
    return _list_all(folder), list(folder.faults)


def list_files(
    input_dir: str, split: str, *, follow_symlinks: bool = False
) -> listing.Listing:
    """Returns all patches of a folder, in order of name and without labels.

    Of a folder that is not there, none.
    """
    if not files.is_folder(os.path.join(input_dir, split)):
        return _list_all(None)
    return _list_all(_list_folder(input_dir, split, follow_symlinks))


def _require(present: bool, path: str) -> None:
    if not present:
        raise FileNotFoundError(
            f"{path}: not found, expected Kaggle's folder ({_LAYOUT})."
            " Check --input_dir."
        )


def _list_folder(
    input_dir: str, split: str, follow_symlinks: bool
) -> scan_folder.FolderListing:
    path = os.path.join(input_dir, split)
    _require(files.is_folder(path), path)
    return scan_folder.list_files(path, follow_symlinks=follow_symlinks)


def _list_all(folder: scan_folder.FolderListing | None) -> listing.Listing:
    """Returns every patch of a folder, without labels; none without a folder."""
    names, files, path = np.array([], "S1"), np.array([], "S1"), ""
    if folder is not None:
        order = name_arrays.argsort(folder.names)
        names, files = folder.names[order], folder.files[order]
        path = folder.folder
    labels = np.full(len(names), schema.UNLABELED, np.int8)
    images = listing.ImageFiles(path, files)
    return listing.Listing(TEST, labels, names, images)


def _join(
    folder: scan_folder.FolderListing,
    table_path: str,
    table: label_table.LabelTable,
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Joins the rows of a table with the files of a folder."""
    places = name_arrays.find(table.names, name_arrays.normalize(folder.names))
    has_file = places >= 0
    missing = table.names[~has_file]
    bad_files = name_arrays.normalize(folder.bad_names)
    missing = missing[name_arrays.find(missing, bad_files) < 0]
    has_row = np.zeros(len(folder.names), bool)
    has_row[places[has_file]] = True
    surplus = np.flatnonzero(~has_row)
    names = name_arrays.normalize(folder.names[surplus])
    surplus = surplus[name_arrays.find(names, table.bad_names) < 0]
    found = [
        *table.faults,
        *folder.faults,
        *(_tell_missing(table_path, name.decode()) for name in missing),
        *(_tell_surplus(table_path, folder, place) for place in surplus),
    ]
    files = folder.files[places[has_file]]
    patches = listing.Listing(
        split=TRAIN,
        labels=table.labels[has_file],
        names=table.names[has_file],
        images=listing.ImageFiles(folder.folder, files),
    )
    return patches, found


def _tell_missing(table_path: str, name: str) -> faults.Fault:
    return faults.Fault(
        name,
        f"{table_path}: found id {name} without a file, expected {name}.tif in"
        " the folder beside it. Add the file or remove the row.",
        "rows without a file",
    )


def _tell_surplus(
    table_path: str, folder: scan_folder.FolderListing, place: int
) -> faults.Fault:
    return faults.Fault(
        folder.names[place].decode(),
        f"{folder.path(place)}: found a file without a row, expected one in"
        f" {table_path}. Add the row or remove the file.",
        "files without a row",
    )


def _place(
    patches: listing.Listing, slide_csv: str
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns the patches whose slide is known, with it."""
    table = label_table.read_slides(slide_csv)
    if table.faults:
        raise faults.BadInputError(table.faults)
    places = name_arrays.find(patches.names, table.names)
    missing = [
        faults.Fault(
            name,
            f"{slide_csv}: found no row for {name}, expected its slide. Add the"
            " row or leave --slide_csv out.",
            "patches without a slide",
        )
        for name in name_arrays.to_text(patches.names[places < 0])
    ]
    rows = np.flatnonzero(places >= 0)
    slides = table.slide_names[table.slides[places[rows]]]
    return dataclasses.replace(patches.take(rows), slides=slides), missing
