"""Lists of patches, one module for each kind of source.

kaggle    Kaggle's folder of TIFFs and CSVs; dealt into folds
hdf5      the official PCam files; its splits stay
folder    class folders of images; its splits stay, if it has any
tfds      a prepared TensorFlow dataset; its splits stay
"""

import dataclasses

from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """A source.

    Attributes:
        kind: One of `choices.SOURCES`.
        input_dir: Its folder.
        slide_csv: Of `kaggle`: slide of each patch.
        class_folders: Of `folder`: those of label 0 and of label 1.
        follow_symlinks: Whether links among its files are followed.
        unpacked_dir: A folder that may be made, for what must be unpacked.
    """

    kind: str
    input_dir: str
    slide_csv: str | None = None
    class_folders: tuple[str, str] = ("0", "1")
    follow_symlinks: bool = False
    unpacked_dir: str = ""


def list_patches(
    options: SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns the splits of a source, and what is wrong with other patches.

    Raises:
        FileNotFoundError, ValueError: the folder is no such source.
        ModuleNotFoundError: a package that it needs is not installed.
    """
    # Each imports what no other needs.
    match options.kind:
        case "kaggle":
            from pcam_tfdata.sources import kaggle as source
        case "hdf5":
            from pcam_tfdata.sources import hdf5 as source
        case "folder":
            from pcam_tfdata.sources import class_folders as source
        case "tfds":
            from pcam_tfdata.sources import tfds as source
    return source.list_patches(options)
