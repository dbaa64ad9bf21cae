"""The files of a folder, listed in one pass.

A file's name without its suffix is the patch's own name. A folder is read once,
and its files are not asked for one by one: what kind each is stands in the
folder itself on the file systems in use. Hidden files (`.name`) are passed
over.
"""

import contextlib
import dataclasses
import operator
import os
from typing import Any

import numpy as np

from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, files, name_arrays

_PROBLEMS = {
    "entries that are no files": "found a folder, a link or the like, expected"
    " files alone. Move it away, or pass --follow_symlinks for links to files.",
    "unusable names": "found a name that is no UTF-8, does not print or holds a"
    " backslash, expected a plain one. Rename it.",
}


@dataclasses.dataclass(frozen=True)
class FolderListing:
    """The files of a folder that can be used, and what is wrong with others.

    Attributes:
        images: The files, in order of their names.
        names: S [num_files], names of the files without their suffix, each
            once. A name of 40 hex digits is in lower case.
        bad_names: S: names of what cannot be used, as those of `names`. A row
            of such a name is not a row without a file.
        faults: What is wrong with others, by file; second files last.
    """

    images: listing.ImageFiles
    names: np.ndarray
    bad_names: np.ndarray
    faults: list[faults.Fault]


def list_files(folder: str, follow_symlinks: bool) -> FolderListing:
    """Lists the files of a folder, images or not: no file is opened.

    Args:
        folder: May itself be a symbolic link.
        follow_symlinks: Takes a symbolic link for what it points at, wherever
            that is. Without it each link is a fault.

    Returns:
        The same in whatever order the file system tells the files. Of two files
        of one name the first by file name is listed, the second is a fault; so
        is each folder.

    Raises:
        OSError: the folder is not there, or cannot be read.
    """
    good, bad = [], []
    for entry in _scan(folder):
        kind = _find_problem(entry, follow_symlinks)
        if not kind:
            good.append(entry)
            continue
        name = faults.escape(entry.name)
        reason = f"{os.path.join(folder, name)}: {_PROBLEMS[kind]}"
        bad.append(faults.Fault(os.path.splitext(name)[0], reason, kind))
    images = listing.ImageFiles(
        folder,
        name_arrays.to_array([entry.name for entry in good]),
        # An entry of a disk has none.
        np.array([getattr(entry, "stamp", 0) for entry in good], np.uint64),
    )
    names = _lower([os.path.splitext(entry.name)[0] for entry in good])
    bad_names = _lower([fault.name for fault in bad])
    first = name_arrays.find_first(names)
    is_first = first == np.arange(len(first))
    for row in np.flatnonzero(~is_first).tolist():
        name = names[row].decode()
        reason = (
            f"{images.locate(row)}: found a second file for {name}, expected"
            f" only {images.locate(first[row])}. Remove one."
        )
        bad.append(faults.Fault(name, reason, "second files"))
    return FolderListing(images.take(is_first), names[is_first], bad_names, bad)


def _scan(folder: str) -> list[Any]:
    """Returns what is in a folder and not hidden, in order of its names."""
    try:
        with files.scan(folder) as entries:
            shown = [e for e in entries if not e.name.startswith(".")]
    except OSError as error:
        raise type(error)(
            f"{folder}: cannot be listed ({error.strerror or error}), expected"
            " a folder that can be read."
        ) from error
    return sorted(shown, key=operator.attrgetter("name"))


def _find_problem(entry: Any, follow_symlinks: bool) -> str:
    """Returns why something is no file that can be used; empty if it is."""
    if not name_arrays.is_plain(entry.name):
        return "unusable names"
    with contextlib.suppress(OSError):  # Of a link that leads in a circle.
        if entry.is_file(follow_symlinks=follow_symlinks):
            return ""
    return "entries that are no files"


def _lower(names: list[str]) -> np.ndarray:
    """Returns names as patches are called: hashes in lower case."""
    return name_arrays.lower_hashes(name_arrays.to_array(names))
