"""Where a command may write: an output takes nothing else's place.

A path is looked at before any work is done; `files.open_whole` writes there then.
Paths in buckets are not looked at.
"""

import os
import pathlib
from collections.abc import Sequence

from pcam_tfdata.records import manifest
from pcam_tfdata.runs import run_folder
from pcam_tfdata.sources import kaggle_layout
from pcam_tfdata.system import files

CSV = (".csv", ".txt")
JSON = (".json",)
_IMAGE_FOLDERS = (kaggle_layout.TRAIN, kaggle_layout.TEST)
_KAGGLE_TABLES = (kaggle_layout.LABELS_FILE, kaggle_layout.SAMPLE_FILE)
# Of made-up patches, of a cross-validation, of the official files.
_OTHER_TABLES = ("truth.csv", "out_of_fold.csv", "_meta.csv")


def check_file(
    path: str, flag: str, *, suffixes: Sequence[str], inputs: Sequence[str] = ()
) -> None:
    """Refuses a path where a file cannot be written, or must not be.

    A pipe, a terminal or a character device may be there: it is written to.

    Args:
        path: The file's, or that of a link to it.
        flag: What names it, as `--output_csv`, for the error.
        suffixes: Those of its format, as `.csv`. A name without one is right
            too, and so is one that ends in a number, as `s_0.95`.
        inputs: Files and folders that the command reads.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: it is such a path.
    """
    if files.is_remote(path):
        return
    if os.path.isdir(path) or pathlib.Path(path).is_block_device():
        raise _taken(path, flag, "a folder or a disk", "a file to write")
    if files.is_stream(path):
        return
    suffix = os.path.splitext(path)[1].lower()
    # One without a letter ends a number, as in `threshold_0.95`.
    if any(map(str.isalpha, suffix)) and suffix not in suffixes:
        raise ValueError(
            f"{flag}={path}: found a name that ends in {suffix}, expected"
            f" {' or '.join(suffixes)}, which is what is written."
        )
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise FileNotFoundError(
            f"{flag}={path}: found no folder {folder} that can be written in."
            f" Make it, or choose another {flag}."
        )
    for other in inputs:
        if files.is_within(target, os.path.realpath(other)):
            found = f"what this command reads ({other})"
            raise _taken(path, flag, found, "another file")
    is_table = name in _KAGGLE_TABLES or name.endswith(_OTHER_TABLES)
    if os.path.exists(target) and is_table:
        raise _taken(
            path, flag, "a table of another kind", "none or an earlier output"
        )
    _refuse_owned(target, path, flag)


def check_folder(path: str, flag: str, *, file: str = "") -> None:
    """Refuses a path where a folder cannot be, or would spoil what is there.

    Args:
        path: The folder's, there or not.
        flag: What names it, for the error.
        file: Name of a file that goes there, if a run may have such a file.

    Raises:
        FileExistsError: it is such a path.
    """
    if files.is_remote(path):
        return
    if os.path.isfile(path):
        raise _taken(path, flag, "a file", "a folder")
    if _is_of_kaggle(path):
        raise _taken(path, flag, "a folder of patches")
    _refuse_owned(os.path.join(os.path.realpath(path), file), path, flag)


def check_new(path: str, flag: str) -> None:
    """Refuses a path where a folder that is made would spoil one around it.

    Args:
        path: The folder's, there or not.
        flag: What names it, for the error.

    Raises:
        FileExistsError: it is such a path.
    """
    if not files.is_remote(path):
        _refuse_owned(os.path.realpath(path), path, flag)


def _refuse_owned(target: str, path: str, flag: str) -> None:
    """Refuses a path without links that is a part of something whole."""
    folder, name = os.path.split(target)
    while name or folder != os.path.dirname(folder):
        if manifest.is_records_folder(folder):
            raise _taken(path, flag, f"a records folder ({folder})")
        if name in _IMAGE_FOLDERS and _is_of_kaggle(folder):
            raise _taken(path, flag, f"a folder of patches ({folder})")
        if run_folder.owns(folder, name):
            raise _taken(path, flag, f"what belongs to a run ({folder})")
        folder, name = os.path.split(folder)


def _is_of_kaggle(folder: str) -> bool:
    return any(
        os.path.isfile(os.path.join(folder, name)) for name in _KAGGLE_TABLES
    )


def _taken(
    path: str, flag: str, found: str, expected: str = "a path outside of it"
) -> FileExistsError:
    return FileExistsError(
        f"{flag}={path}: found {found}, expected {expected}. Choose another"
        f" {flag}."
    )
