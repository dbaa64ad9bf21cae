"""Lists of patches, one module for each kind of source.

kaggle    Kaggle's folder of TIFFs and CSVs; dealt into folds
hdf5      the official PCam files; its splits stay
folder    class folders of images; its splits stay, if it has any
tfds      a prepared TensorFlow dataset; its splits stay
"""

import importlib

from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults

_MODULES = {
    "kaggle": "kaggle",
    "hdf5": "hdf5",
    "folder": "class_folders",
    "tfds": "tfds",
}


def list_patches(
    options: listing.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns the splits of a source, and what is wrong with other patches.

    Raises:
        FileNotFoundError, ValueError: the folder is no such source.
        ModuleNotFoundError: a package that it needs is not installed.
    """
    # Each imports what no other needs.
    name = f"{__package__}.{_MODULES[options.source]}"
    return importlib.import_module(name).list_patches(options)
