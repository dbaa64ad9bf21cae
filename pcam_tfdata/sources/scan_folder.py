"""The files of a folder, listed in one pass.

A file's name without its suffix is the patch's own name. A folder is read once,
and its files are not asked for one by one: what kind each is stands in the
folder itself on the file systems in use. Hidden files (`.name`) are passed
over.
"""

import collections
import dataclasses
import os
import re
import stat
from collections.abc import Mapping, Sequence

import numpy as np

from pcam_tfdata.sources import listing
from pcam_tfdata.system import faults, files, name_arrays, remote

_PLAIN_ASCII = re.compile(rb"[ -\[\]-~]+")  # All that prints, no backslash.
_FILE = ""
_LINK, _DANGLING, _FOLDER = "links", "dangling links", "folders"
_SPECIAL, _UNFIT = "special files", "unusable names"
_PROBLEMS = {
    _LINK: "found a symbolic link, expected a file. Pass --follow_symlinks to"
    " read what it points at, or remove it.",
    _DANGLING: "found a symbolic link to nothing that can be reached, expected"
    " one to a file. Mend or remove it.",
    _FOLDER: "found a folder, expected files alone. Move it away.",
    _SPECIAL: "found a pipe, socket or device, expected a file. Remove it.",
    _UNFIT: "found a name that is no UTF-8, does not print or holds a"
    " backslash, expected a plain one. Rename it.",
}


@dataclasses.dataclass(frozen=True)
class FolderListing:
    """The files of a folder that can be used, and what is wrong with others.

    Attributes:
        images: The files, in order of their names.
        names: S [num_files], names of the files without their suffix, each
            once. A name of 40 hex digits is in lower case.
        bad_names: S, sorted, each once: names of what cannot be used. A row of
            such a name is not a row without a file.
        faults: By kind, then by file: at most 1,000 of a kind, and a fault
            without a name for each kind that has more.
    """

    images: listing.ImageFiles
    names: np.ndarray
    bad_names: np.ndarray
    faults: list[faults.Fault]


def list_files(folder: str, *, follow_symlinks: bool = False) -> FolderListing:
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
    names_of, stamps = _scan(folder, follow_symlinks)
    file_names = np.array(names_of.pop(_FILE, []), np.bytes_)
    order = np.argsort(file_names)
    images = listing.ImageFiles(
        folder,
        file_names[order],
        np.array(stamps, np.uint64)[order] if stamps else None,
    )
    names = _to_names(images.files.tolist())
    odd = [name for group in names_of.values() for name in group]
    first = name_arrays.find_first(names)
    is_kept = first == np.arange(len(first))
    return FolderListing(
        images=images.take(is_kept),
        names=names[is_kept],
        bad_names=np.unique(_to_names(odd)),
        faults=_list_seconds(images, names, first)
        + _list_odd(folder, names_of),
    )


def _scan(
    folder: str, follow_symlinks: bool
) -> tuple[dict[str, list[bytes]], list[int]]:
    """Returns names by what they are, and the stamps of files in a bucket."""
    scan = remote.scan if files.is_remote(folder) else os.scandir
    names_of = collections.defaultdict(list)
    stamps = []
    try:
        with scan(os.fsencode(folder)) as entries:
            for entry in entries:
                if entry.name.startswith(b"."):
                    continue
                kind = _find_kind(entry, follow_symlinks)
                names_of[kind].append(entry.name)
                if kind == _FILE and isinstance(entry, remote.Entry):
                    stamps.append(entry.stamp)
    except OSError as error:
        raise type(error)(
            f"{folder}: cannot be listed ({error.strerror or error}), expected"
            " a folder that can be read."
        ) from error
    return names_of, stamps


def _find_kind(
    entry: os.DirEntry[bytes] | remote.Entry, follow_symlinks: bool
) -> str:
    if not _PLAIN_ASCII.fullmatch(entry.name) and not _is_plain(entry.name):
        return _UNFIT
    # None of these asks the disk where the folder's entry tells the kind.
    if entry.is_file(follow_symlinks=False):
        return _FILE
    if entry.is_dir(follow_symlinks=False):
        return _FOLDER
    if not isinstance(entry, os.DirEntry) or not entry.is_symlink():
        return _SPECIAL
    if not follow_symlinks:
        return _LINK
    try:
        mode = entry.stat().st_mode
    except OSError:  # Nothing there, no right to see it, or a loop.
        return _DANGLING
    if stat.S_ISREG(mode):
        return _FILE
    return _FOLDER if stat.S_ISDIR(mode) else _SPECIAL


def _is_plain(name: bytes) -> bool:
    try:
        return name_arrays.is_plain(name.decode())
    except UnicodeDecodeError:
        return False


def _to_names(paths: Sequence[bytes]) -> np.ndarray:
    """Returns file names without their suffix, as patches are called."""
    return name_arrays.lower_hashes(
        np.array(list(map(_stem, paths)), np.bytes_)
    )


def _stem(path: bytes) -> bytes:
    stem, _, _ = path.rpartition(b".")
    return stem or path


def _list_seconds(
    images: listing.ImageFiles, names: np.ndarray, first: np.ndarray
) -> list[faults.Fault]:
    """Returns a fault for each file that has the name of an earlier one."""
    seconds = np.flatnonzero(first != np.arange(len(first))).tolist()
    described = (
        (
            name := names[row].decode(),
            f"{images.locate(row)}: found a second file for {name}, expected"
            f" only {images.locate(first[row])}. Remove one.",
        )
        for row in seconds
    )
    return faults.list_some(
        "second files", images.folder, len(seconds), described
    )


def _list_odd(
    folder: str, names_of: Mapping[str, list[bytes]]
) -> list[faults.Fault]:
    """Returns a fault for each thing that cannot be used."""
    bad = []
    for kind, names in sorted(names_of.items()):
        described = (
            (
                _show(_stem(name)),
                f"{os.path.join(folder, _show(name))}: {_PROBLEMS[kind]}",
            )
            for name in sorted(names)
        )
        bad += faults.list_some(kind, folder, len(names), described)
    return bad


def _show(name: bytes) -> str:
    return faults.escape(name.decode(errors="backslashreplace"))
