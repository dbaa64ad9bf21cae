"""Files on remote file systems (`gs://`, `s3://`, ...), through fsspec.

fsspec and the package of a scheme (gcsfs, s3fs) are imported when the first path
of it is met, and take credentials and addresses from where they always do:
environment variables and files of their own. A file appears whole: it is
written on the local disk first. Their errors come as `OSError`.
"""

import concurrent.futures
import contextlib
import dataclasses
import errno
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

_BLOCK_FILES = 256  # Asked for at a time; fsspec has 128 requests under way.
_NUM_CHANGES = 16  # Copies, or removals, under way at a time.
# What packages call that which changes with the bytes of a file.
_OF_STATE = (
    "size", "ETag", "etag", "md5Hash", "content_md5", "generation",
    "LastModified", "last_modified", "updated", "mtime", "modified", "created",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is in a folder; an `os.DirEntry` as far as it goes.

    Attributes:
        name: Within the folder.
        has_bytes: Whether it is a file.
        stamp: 64 bits that tell it from others that had its name: of its size,
            time and hash, as far as the listing tells them.
    """

    name: bytes
    has_bytes: bool
    stamp: int

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Returns whether it is a file."""
        return self.has_bytes

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Returns whether it is a folder."""
        return not self.has_bytes

    def is_symlink(self) -> bool:
        """Returns False: there are no links."""
        return False


@functools.cache
def knows(scheme: str) -> bool:
    """Returns whether fsspec and the package of a scheme are installed."""
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError):
        return False
    return True


def require(path: str) -> None:
    """Refuses a path that cannot be opened for want of a package.

    Raises:
        RuntimeError: it is not installed.
    """
    scheme = path.partition("://")[0]
    if not knows(scheme):
        raise RuntimeError(
            f"{path}: found no package for {scheme}://, expected fsspec and one"
            " of its own. pip install 'pcam_tfdata[remote]' brings those of"
            " s3:// and gs://."
        )


def size(path: str) -> int | None:
    """Returns the bytes of a file, or None if there is no such file."""
    found = _describe(path)
    return found["size"] if found and found["type"] == "file" else None


def is_folder(path: str) -> bool:
    """Returns whether there is a folder, or a name that begins like its files."""
    found = _describe(path)
    return found is not None and found["type"] == "directory"


def stamp(path: str) -> str:
    """Returns size and time of a file."""
    system, place = _open_system(path)
    with _told(path):
        return f"{system.size(place)} {system.modified(place)}"


def open_file(path: str, mode: str, **options: object) -> IO:
    """Opens a file for reading, as `open` does."""
    if "b" not in mode:
        options = {"encoding": "utf-8", **options}
    system, place = _open_system(path)
    with _told(path):
        return system.open(place, mode, **options)


def read_bytes(path: str, start: int, num_bytes: int) -> bytes:
    """Returns bytes of a file from `start` on; fewer at its end."""
    system, place = _open_system(path)
    with _told(path):
        try:
            return system.cat_file(place, start=start, end=start + num_bytes)
        except OSError as error:
            if _is_of_empty_file(error, system, place):
                return b""
            raise


@contextlib.contextmanager
def open_whole(path: str, mode: str, **options: object) -> Iterator[IO]:
    """Opens a file to write that is at `path` once it is whole.

    Until then it is on the local disk, where TMPDIR says; after an error it is
    nowhere.
    """
    with tempfile.NamedTemporaryFile(mode, **options) as file:
        try:
            yield file
            file.flush()
        except OSError as error:  # A full disk names no file.
            if error.errno and not error.filename:
                error.filename = file.name
            raise
        system, place = _open_system(path)
        with _told(path):
            system.put_file(file.name, place)


@contextlib.contextmanager
def scan(path: str | bytes) -> Iterator[Iterator[Entry]]:
    """Lists a folder, as `os.scandir` does.

    Raises:
        FileNotFoundError: there is none.
    """
    path = os.fsdecode(path)
    system, place = _open_system(path)
    with _told(path):
        found = system.ls(place, detail=True)
    own = place.rstrip("/")
    yield (
        Entry(
            name.rpartition("/")[2].encode(),
            entry["type"] != "directory",
            _hash_state(entry),
        )
        for entry in found
        # Some stores hold an empty object that stands for the folder.
        if (name := entry["name"].rstrip("/")) != own
    )


def list_names(path: str) -> list[str]:
    """Returns the names in a folder; none if there is no folder."""
    try:
        with scan(path) as entries:
            return [entry.name.decode() for entry in entries]
    except FileNotFoundError:
        return []


def read_many(paths: Sequence[str], max_bytes: int) -> Iterator[bytes]:
    """Yields the content of files, in order, cut at `max_bytes`.

    Many are asked for at once, and the next block while the last one is used:
    a store takes its time to answer, not to send.

    Raises:
        OSError: a file cannot be read.
    """
    if not paths:
        return
    system, _ = _open_system(paths[0])
    blocks = (
        paths[start : start + _BLOCK_FILES]
        for start in range(0, len(paths), _BLOCK_FILES)
    )
    read = functools.partial(_read_block, system, max_bytes)
    with concurrent.futures.ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(read, next(blocks))
        for block in blocks:
            following = ahead.submit(read, block)
            yield from waiting.result()
            waiting = following
        yield from waiting.result()


def copy_all(pairs: Sequence[tuple[str, str]]) -> None:
    """Copies files from one path to another, without fetching them.

    Raises:
        OSError: one cannot be copied.
    """
    if not pairs:
        return
    system, _ = _open_system(pairs[0][0])
    _do_all(functools.partial(_copy, system), pairs)


def remove(path: str) -> None:
    """Removes a file, if it is there."""
    _remove(*_open_system(path), path)


def remove_folder(path: str) -> None:
    """Removes all files of a folder, if it is there."""
    system, place = _open_system(path)
    # Not `rm` of the folder: to that, `records[1]` is also `records1`.
    with _told(path):
        found = system.find(place)
    inside = [name for name in found if name.startswith(f"{place}/")]
    _do_all(_remove, [(system, name, path) for name in inside])


def _open_system(path: str) -> tuple[Any, str]:
    """Returns fsspec's file system, and what it calls the path."""
    import fsspec

    # A listing that is kept would not show what other processes write.
    with _told(path):
        return fsspec.url_to_fs(path, use_listings_cache=False)


def _describe(path: str) -> dict[str, Any] | None:
    system, place = _open_system(path)
    try:
        with _told(path):
            return system.info(place)
    except FileNotFoundError:
        return None


def _hash_state(entry: dict[str, Any]) -> int:
    """Returns a hash of what a listing tells of the state of a file."""
    state = [str(entry[key]) for key in _OF_STATE if key in entry]
    digest = hashlib.blake2b("\n".join(state).encode(), digest_size=8)
    return int.from_bytes(digest.digest())


def _read_block(
    system: Any, max_bytes: int, paths: Sequence[str]
) -> list[bytes]:
    places = [system._strip_protocol(path) for path in paths]
    with _told(paths[0]):
        blocks = system.cat_ranges(places, 0, max_bytes, on_error="return")
    for path, place, found in zip(paths, places, blocks, strict=True):
        with _told(path):
            if isinstance(found, Exception) and not _is_of_empty_file(
                found, system, place
            ):
                raise found
    return [b"" if isinstance(found, Exception) else found for found in blocks]


def _is_of_empty_file(error: Exception, system: Any, place: str) -> bool:
    """Returns whether a read failed since an empty file has no bytes to send.

    s3fs has one number for that and for much else, as a session that expired.
    """
    is_likely = isinstance(error, OSError) and error.errno == errno.EINVAL
    return is_likely and system.info(place)["size"] == 0


def _do_all(change: Callable[..., None], each: Sequence[tuple]) -> None:
    """Makes changes, many at once; the first error ends it."""
    with concurrent.futures.ThreadPoolExecutor(_NUM_CHANGES) as pool:
        for done in [pool.submit(change, *values) for values in each]:
            done.result()


def _copy(system: Any, source: str, target: str) -> None:
    with _told(target):
        system.cp_file(*map(system._strip_protocol, (source, target)))


def _remove(system: Any, place: str, path: str) -> None:
    with _told(path), contextlib.suppress(FileNotFoundError):
        system.rm_file(place)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Turns what a package raises into an `OSError` that names the path."""
    try:
        yield
    except Exception as error:
        kind = type(error) if isinstance(error, OSError) else OSError
        kind = kind if kind.__module__ == "builtins" else OSError
        text = " ".join(str(error).split()) or type(error).__name__
        raise kind(
            f"{path}: cannot be used ({text[:300]}). Check the path, your"
            " credentials and the network."
        ) from error
