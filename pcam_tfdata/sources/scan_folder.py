"""The files of a folder, listed in one pass.

A file's name without its suffix is the patch's own name. A folder is read once,
and its files are not asked for one by one: what kind each is stands in the
folder itself on the file systems in use. Hidden files (`.name`) are passed over.
"""

import array
import collections
import contextlib
import dataclasses
import heapq
import itertools
import os
import stat
from collections.abc import Iterator, Sequence

import numpy as np

from pcam_tfdata.system import faults, files, name_arrays, remote

_BLOCK_FILES = 1 << 16
_FILE, _FOLDER, _LINKED_FOLDER = "file", "folder", "linked folder"
_LINK, _DANGLING, _LOOP = "links", "dangling links", "links to listed folders"
_STRAY, _SPECIAL, _UNFIT = "folders", "special files", "unusable names"
_PROBLEMS = {
    _LINK: "found a symbolic link, expected a file. Pass --follow_symlinks to"
    " read what it points at, or remove it.",
    _DANGLING: "found a symbolic link to nothing that can be reached, expected"
    " one to a file. Mend or remove it.",
    _LOOP: "found a symbolic link to a folder that is listed already, expected"
    " each folder once. Remove the link.",
    _STRAY: "found a folder, expected files alone. Move it away.",
    _SPECIAL: "found a pipe, socket or device, expected a file. Remove it.",
    _UNFIT: "found a name that is no UTF-8, does not print or holds a"
    " backslash, expected a plain one. Rename it.",
}


@dataclasses.dataclass(frozen=True)
class FolderListing:
    """The files of a folder that can be used, and what is wrong with others.

    Attributes:
        folder: As it was given.
        files: S [num_files], sorted: file names as UTF-8; with `recursive`
            relative paths such as `a/b.tif`.
        names: S [num_files], `files` without their suffix, each once. A name of
            40 hex digits is in lower case.
        stamps: uint64 [num_files], in a bucket: what the listing says of the
            state of each file, see `remote.Entry`; None on a disk.
        bad_names: S, sorted, each once: names of what cannot be used. A row of
            such a name is not a row without a file.
        faults: By kind, then by file: at most 1,000 of a kind, and a fault
            without a name for each kind that has more.
    """

    folder: str
    files: np.ndarray
    names: np.ndarray
    stamps: np.ndarray | None
    bad_names: np.ndarray
    faults: list[faults.Fault]

    def path(self, place: int) -> str:
        """Returns the path of the file at a place of `files`."""
        return os.path.join(self.folder, self.files[place].decode())


def list_files(
    folder: str, *, recursive: bool = False, follow_symlinks: bool = False
) -> FolderListing:
    """Lists the files of a folder, images or not: no file is opened.

    Args:
        folder: May itself be a symbolic link.
        recursive: Lists the files of its folders too. Without it each folder in
            it is a fault.
        follow_symlinks: Takes a symbolic link for what it points at, wherever
            that is; a folder that is met again, as in a loop, is a fault and is
            not listed again. Without it each link is a fault.

    Returns:
        The same in whatever order the file system tells the files. Of two files
        of one name the first by file name is listed, the second is a fault.

    Raises:
        OSError: a folder is not there, or cannot be read.
    """
    walk = _Walk(folder, recursive=recursive, follow_symlinks=follow_symlinks)
    files, stamps = name_arrays.join(list(walk.iterate_files())), None
    if walk.is_remote:
        order = name_arrays.argsort(files)
        files, stamps = files[order], np.array(walk.stamps, np.uint64)[order]
    else:
        files.sort()
    stems = name_arrays.lower_hashes(_stems(files))
    first = name_arrays.find_first(stems)
    is_kept = first == np.arange(len(first))
    bad = [_stem(path) for paths in walk.odd.values() for path in paths]
    return FolderListing(
        folder=folder,
        files=files[is_kept],
        names=stems[is_kept],
        stamps=None if stamps is None else stamps[is_kept],
        bad_names=np.unique(
            name_arrays.lower_hashes(np.array([*bad, b""], np.bytes_))
        )[1:],
        faults=[
            *_list_seconds(folder, files, stems, first, ~is_kept),
            *_list_odd(folder, walk.odd),
        ],
    )


class _Walk:
    """One pass through a folder, and its folders.

    Attributes:
        odd: Relative paths of what cannot be used, by what it is.
        is_remote: Whether it is in a bucket.
        stamps: There, of the files in the order in which they came.
    """

    def __init__(
        self, folder: str, *, recursive: bool, follow_symlinks: bool
    ) -> None:
        self._folder = os.fsencode(folder)
        self.is_remote = files.is_remote(folder)
        self._scan = remote.scan if self.is_remote else os.scandir
        self._recursive = recursive
        # A bucket has none.
        self._follow_symlinks = follow_symlinks and not self.is_remote
        self.odd: dict[str, list[bytes]] = collections.defaultdict(list)
        self.stamps = array.array("Q")

    def iterate_files(self) -> Iterator[np.ndarray]:
        """Yields relative paths of files, S, in no certain order."""
        self._folders, self._links = [b""], []
        listed: set[tuple[int, int]] = set()
        while self._folders or self._links:
            # Links last and by name: of a folder that is met twice, the folder
            # itself is listed, else always the same link.
            waiting = self._folders or [heapq.heappop(self._links)]
            folder = waiting.pop()
            if self._follow_symlinks:
                identity = self._identify(folder)
                if identity in listed:
                    self.odd[_LOOP].append(folder)
                    continue
                listed.add(identity)
            yield from self._list_folder(folder)

    def _identify(self, folder: bytes) -> tuple[int, int]:
        with _told(self._folder, folder):
            status = os.stat(os.path.join(self._folder, folder))
        return status.st_dev, status.st_ino

    def _list_folder(self, folder: bytes) -> Iterator[np.ndarray]:
        """Yields the files of one folder, and notes what else is in it."""
        prefix = os.path.join(folder, b"")
        with (
            _told(self._folder, folder),
            self._scan(os.path.join(self._folder, folder)) as entries,
        ):
            while block := list(itertools.islice(entries, _BLOCK_FILES)):
                yield self._sort_out(prefix, block)

    def _sort_out(self, prefix: bytes, block: list[os.DirEntry]) -> np.ndarray:
        """Returns the files among entries; notes the others."""
        block = [entry for entry in block if not entry.name.startswith(b".")]
        unfit = set(_find_unfit([entry.name for entry in block]))
        found = collections.defaultdict(list)
        for place, entry in enumerate(block):
            kind = _UNFIT if place in unfit else self._kind(entry)
            found[kind].append(prefix + entry.name)
            if self.is_remote and kind == _FILE:
                self.stamps.append(entry.stamp)
        files = found.pop(_FILE, [])
        if self._recursive:
            self._folders += found.pop(_FOLDER, [])
            for link in found.pop(_LINKED_FOLDER, []):
                heapq.heappush(self._links, link)
        for kind, paths in found.items():
            self.odd[kind if kind in _PROBLEMS else _STRAY] += paths
        return np.array(files, np.bytes_) if files else name_arrays.to_array([])

    def _kind(self, entry: os.DirEntry) -> str:
        # None of these asks the disk where the folder's entry tells the kind.
        if entry.is_file(follow_symlinks=False):
            return _FILE
        if entry.is_dir(follow_symlinks=False):
            return _FOLDER
        if not entry.is_symlink():
            return _SPECIAL
        return self._target_kind(entry) if self._follow_symlinks else _LINK

    def _target_kind(self, entry: os.DirEntry) -> str:
        try:
            mode = entry.stat().st_mode
        except OSError:  # Nothing there, no right to see it, or a loop.
            return _DANGLING
        if stat.S_ISREG(mode):
            return _FILE
        return _LINKED_FOLDER if stat.S_ISDIR(mode) else _SPECIAL


@contextlib.contextmanager
def _told(root: bytes, folder: bytes) -> Iterator[None]:
    """Lets an error of the file system say which folder cannot be listed."""
    try:
        yield
    except OSError as error:
        path = os.fsdecode(os.path.join(root, folder) if folder else root)
        problem = error.strerror or error
        raise type(error)(
            f"{path}: cannot be listed ({problem}), expected a folder that can"
            " be read."
        ) from error


def _find_unfit(found: Sequence[bytes]) -> list[int]:
    """Returns the places of names that are no plain UTF-8."""
    try:
        text = b"/".join(found).decode()  # No name holds a slash.
        if text.isprintable() and "\\" not in text:
            return []
    except UnicodeDecodeError:
        pass
    return [place for place, name in enumerate(found) if not _is_plain(name)]


def _is_plain(name: bytes) -> bool:
    try:
        return name_arrays.is_plain(name.decode())
    except UnicodeDecodeError:
        return False


def _stems(files: np.ndarray) -> np.ndarray:
    """Returns files without their suffix; a block at a time, to save memory."""
    blocks = [
        np.array(list(map(_stem, block.tolist())), np.bytes_)
        for start in range(0, len(files), _BLOCK_FILES)
        if len(block := files[start : start + _BLOCK_FILES])
    ]
    return name_arrays.join(blocks)


def _stem(path: bytes) -> bytes:
    head, _, tail = path.rpartition(b".")
    return head if head and b"/" not in tail else path


def _list_seconds(
    folder: str,
    files: np.ndarray,
    stems: np.ndarray,
    first: np.ndarray,
    is_second: np.ndarray,
) -> list[faults.Fault]:
    """Returns a fault for each file that has the name of an earlier one."""
    seconds = np.flatnonzero(is_second)

    def describe(place: int) -> tuple[str, str]:
        name = stems[place].decode()
        second, kept = (
            os.path.join(folder, files[place].decode())
            for place in (place, first[place])
        )
        return name, (
            f"{second}: found a second file for {name}, expected only {kept}."
            " Remove one."
        )

    described = map(describe, seconds)
    return faults.list_some("second files", folder, len(seconds), described)


def _list_odd(folder: str, odd: dict[str, list[bytes]]) -> list[faults.Fault]:
    """Returns a fault for each thing that cannot be used."""

    def describe(kind: str, path: bytes) -> tuple[str, str]:
        path, name = (
            faults.escape(text.decode(errors="backslashreplace"))
            for text in (path, _stem(path))
        )
        return name, f"{os.path.join(folder, path)}: {_PROBLEMS[kind]}"

    found = []
    for kind, paths in sorted(odd.items()):
        described = map(describe, itertools.repeat(kind), sorted(paths))
        found += faults.list_some(kind, folder, len(paths), described)
    return found
