"""The patches of Kaggle's folder that can be predicted without records."""

import logging

import numpy as np

from pcam_tfdata.conversion import identity
from pcam_tfdata.prediction import configuration
from pcam_tfdata.sources import kaggle, kaggle_layout, listing
from pcam_tfdata.system import faults, workers

_LISTERS = {
    kaggle_layout.TEST: kaggle.list_test,
    kaggle_layout.TRAIN: kaggle.list_train,
}

_logger = logging.getLogger(__name__)


def list_usable(options: configuration.PredictOptions) -> listing.Listing:
    """Returns the patches of a folder that can be used; all files are read.

    Raises:
        BadInputError: a patch cannot be used, unless such are to be left out.
        FileNotFoundError, ValueError: there is no such folder, or no patch of
            it can be used.
    """
    list_split = _LISTERS.get(options.split)
    if list_split is None:
        raise ValueError(
            f"--split: found {options.split!r}, expected {kaggle_layout.TEST} or"
            f" {kaggle_layout.TRAIN} with --input_dir."
        )
    source = listing.SourceOptions(
        "kaggle", options.input_dir, follow_symlinks=options.follow_symlinks
    )
    patches, bad = list_split(source)
    listings = [patches]
    if options.check_ids == "auto":  # A conversion would ask both splits.
        (other,) = _LISTERS.keys() - {options.split}
        listings.append(kaggle.list_files(source, other)[0])
    must_match = identity.names_are_hashes(listings, options.check_ids)
    (hashes,), unfit = identity.hash_all(
        workers.map_in_threads, [patches], must_match=must_match
    )
    bad += unfit
    rows = np.flatnonzero(hashes != b"")
    if bad and options.on_bad_patch == "fail":
        raise faults.BadInputError(bad, len(rows))
    if bad:
        _logger.warning(
            "%s\nWarning: patches with these faults are left out of %s.",
            faults.BadInputError(bad), options.output_csv,
        )  # fmt: skip
    if not len(rows):
        raise ValueError(
            f"{options.input_dir}: found no {options.split} patch that can be used,"
            " expected at least one. Check --input_dir."
        )
    return patches.take(rows)
