"""The patches of Kaggle's folder that can be predicted without records."""

import logging

import numpy as np

from pcam_tfdata.conversion import identity
from pcam_tfdata.prediction import configuration
from pcam_tfdata.sources import kaggle, listing
from pcam_tfdata.system import faults, workers

_logger = logging.getLogger(__name__)


def list_usable(
    options: configuration.PredictOptions,
) -> tuple[listing.Listing, set[str]]:
    """Returns the patches of a folder that can be used; all files are read.

    Beside them it returns the names of the others.

    Raises:
        BadInputError: a patch cannot be used, unless such are to be left out.
        FileNotFoundError, ValueError: there is no such folder, or no patch of
            it can be used.
    """
    patches, bad = _list_split(options)
    check_ids = options.check_ids
    if check_ids == "auto" and _others_are_hashed(options):
        check_ids = "always"
    (hashes,), unfit = identity.hash_all(
        workers.Threads(), [patches], check_ids
    )
    bad += unfit
    if bad and options.on_bad_patch == "fail":
        num_usable = int(np.count_nonzero(hashes != b""))
        raise faults.BadInputError(bad, num_usable)
    if bad:
        _logger.warning(
            "%s\nWarning: patches with these faults are left out of %s.",
            faults.BadInputError(bad), options.output_csv,
        )  # fmt: skip
    usable = patches.take(np.flatnonzero(hashes != b""))
    if not len(usable):
        raise ValueError(
            f"{options.input_dir}: found no {options.split} patch that can be"
            " used, expected at least one. Check --input_dir."
        )
    return usable, {fault.name for fault in bad}


def _list_split(
    options: configuration.PredictOptions,
) -> tuple[listing.Listing, list[faults.Fault]]:
    if options.split not in (kaggle.TEST, kaggle.TRAIN):
        raise ValueError(
            f"--split: found {options.split!r}, expected {kaggle.TEST} or"
            f" {kaggle.TRAIN} with --input_dir."
        )
    is_test = options.split == kaggle.TEST
    list_split = kaggle.list_test if is_test else kaggle.list_train
    return list_split(
        options.input_dir, follow_symlinks=options.follow_symlinks
    )


def _others_are_hashed(options: configuration.PredictOptions) -> bool:
    """Returns whether names of the other split are the SHA-1 of the pixels.

    A conversion of the folder would then ask it of both splits.
    """
    is_test = options.split == kaggle.TEST
    others = kaggle.list_files(
        options.input_dir,
        kaggle.TRAIN if is_test else kaggle.TEST,
        follow_symlinks=options.follow_symlinks,
    )
    return identity.names_are_hashes([others], "auto")
