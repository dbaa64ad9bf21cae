"""Kaggle's folder: train/ID.tif, train_labels.csv, test/ID.tif and
sample_submission.csv."""

import dataclasses
import logging
import os

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.sources import kaggle_layout, label_table, listing, scan_folder
from pcam_tfdata.system import faults, files, name_arrays

_LAYOUT = (
    f"{kaggle_layout.TRAIN}/, {kaggle_layout.LABELS_FILE},"
    f" {kaggle_layout.TEST}/, {kaggle_layout.SAMPLE_FILE}"
)

_logger = logging.getLogger(__name__)


def list_patches(
    options: listing.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns train, to be dealt into folds, and test if there is any.

    See `list_train` and `list_test`.
    """
    train, of_train = list_train(options)
    test, of_test = list_test(options)
    return [train, test] if len(test) else [train], of_train + of_test


def list_train(
    options: listing.SourceOptions,
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns the labelled patches in the order of their labels' file.

    Returns:
        The patches that can be used, and what is wrong with the others: see
        `label_table.read_labels` and `scan_folder.list_files`; a row without a
        file or a file without a row; no slide.

    Raises:
        FileNotFoundError, ValueError: a folder, file or column is missing.
    """
    path = os.path.join(options.input_dir, kaggle_layout.LABELS_FILE)
    _require(files.is_file(path), path)
    folder = _scan(options, kaggle_layout.TRAIN)
    patches, bad = _join(folder, path, label_table.read_labels(path))
    patches = dataclasses.replace(
        patches, split=kaggle_layout.TRAIN, is_dealt=True
    )
    if options.slide_csv is None:
        return patches, bad
    patches, without = _add_slides(patches, options.slide_csv)
    return patches, bad + without


def list_test(
    options: listing.SourceOptions,
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns the unlabelled patches in the order of sample_submission.csv.

    Without that file they are in the order of their names; without a `test`
    folder there are none.

    Returns:
        The patches that can be used, and what is wrong with the others.
    """
    path = os.path.join(options.input_dir, kaggle_layout.SAMPLE_FILE)
    if files.is_file(path):
        folder = _scan(options, kaggle_layout.TEST)
        return _join(folder, path, label_table.read_names(path))
    if files.is_folder(os.path.join(options.input_dir, kaggle_layout.TEST)):
        _logger.info("%s: not there, test is in order of name.", path)
    else:
        _logger.info("%s: no test/, so no test split.", options.input_dir)
    return list_files(options, kaggle_layout.TEST)


def list_files(
    options: listing.SourceOptions, split: str
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns all patches of a folder, in order of name and without labels.

    Of a folder that is not there, none. Faults are those of the files.
    """
    names, bad = np.array([], "S1"), []
    images = listing.ImageFiles("", names, np.array([], np.uint64))
    if files.is_folder(os.path.join(options.input_dir, split)):
        folder = _scan(options, split)
        order = np.argsort(folder.names, kind="stable")
        names, images = folder.names[order], folder.images.take(order)
        bad = folder.faults
    labels = np.full(len(names), schema.UNLABELED, np.int8)
    return listing.Listing(kaggle_layout.TEST, labels, names, images), bad


def _require(present: bool, path: str) -> None:
    if not present:
        raise FileNotFoundError(
            f"{path}: not found, expected Kaggle's folder ({_LAYOUT})."
            " Check --input_dir."
        )


def _scan(
    options: listing.SourceOptions, split: str
) -> scan_folder.FolderListing:
    path = os.path.join(options.input_dir, split)
    _require(files.is_folder(path), path)
    return scan_folder.list_files(path, options.follow_symlinks)


def _join(
    folder: scan_folder.FolderListing,
    table_path: str,
    table: label_table.IdTable,
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Joins the rows of a table with the files of a folder, as split test."""
    ids = name_arrays.normalize(folder.names)
    bad_ids = name_arrays.normalize(folder.bad_names)
    index = name_arrays.find(table.names, ids)
    has_file = index >= 0
    is_missing = ~has_file & ~np.isin(table.names, bad_ids)
    is_surplus = ~np.isin(np.arange(len(ids)), index)
    is_surplus &= ~np.isin(ids, table.bad_names)
    without_file = [
        faults.Fault(
            name,
            f"{table_path}: found id {name} without a file, expected {name}.tif"
            " in the folder beside it. Add the file or remove the row.",
            "rows without a file",
        )
        for name in name_arrays.to_text(table.names[is_missing])
    ]
    without_row = [
        faults.Fault(
            folder.names[row].decode(),
            f"{folder.images.locate(row)}: found a file without a row, expected"
            f" one in {table_path}. Add the row or remove the file.",
            "files without a row",
        )
        for row in np.flatnonzero(is_surplus).tolist()
    ]
    patches = listing.Listing(
        split=kaggle_layout.TEST,
        labels=table.values[has_file],
        names=table.names[has_file],
        images=folder.images.take(index[has_file]),
    )
    return patches, table.faults + folder.faults + without_file + without_row


def _add_slides(
    patches: listing.Listing, slide_csv: str
) -> tuple[listing.Listing, list[faults.Fault]]:
    """Returns the patches whose slide is known, with it."""
    table, fractions = label_table.read_slides(slide_csv)
    if bad := table.faults + (fractions.faults if fractions else []):
        raise faults.BadInputError(bad)
    index = name_arrays.find(patches.names, table.names)
    missing = [
        faults.Fault(
            name,
            f"{slide_csv}: found no row for {name}, expected its slide. Add the"
            " row or leave --slide_csv out.",
            "patches without a slide",
        )
        for name in name_arrays.to_text(patches.names[index < 0])
    ]
    rows = index[index >= 0]
    known = dataclasses.replace(
        patches.take(np.flatnonzero(index >= 0)),
        slides=table.values[rows],
        tumor_fractions=fractions.values[rows] if fractions else None,
    )
    return known, missing
