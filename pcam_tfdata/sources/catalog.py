"""Lists of patches, one module for each kind of source.

kaggle    Kaggle's folder of TIFFs and CSVs; dealt into folds
hdf5      the official PCam files; its splits stay
folder    class folders of images; its splits stay, if it has any
tfds      a prepared TensorFlow dataset; its splits stay
"""

import importlib

from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults

_MODULES = {"folder": "class_folders"}  # Others are named as their kind.


def list_patches(
    options: listing.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns the splits of a source, and what is wrong with other patches.

    Raises:
        FileNotFoundError, ValueError: the folder is no such source.
        ModuleNotFoundError: a package that it needs is not installed.
    """
    # Each imports what no other needs.
    module = _MODULES.get(options.source, options.source)
    name = f"{__package__}.{module}"
    return importlib.import_module(name).list_patches(options)
