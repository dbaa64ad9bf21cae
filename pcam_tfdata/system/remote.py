"""Files on remote file systems (`gs://`, `s3://`, ...), through fsspec.

fsspec and the package of a scheme (gcsfs, s3fs) are imported when the first path
of it is met, and take credentials and addresses from where they always do:
environment variables and files of their own.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

from pcam_tfdata.system import faults

_BLOCK_FILES = 256  # Asked for at a time; fsspec has 128 requests under way.
_NUM_REMOVALS = 16  # Under way at a time.
# What packages call that which changes with the bytes of a file.
_STATE_KEYS = (
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

    name: str
    has_bytes: bool
    stamp: int

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Returns whether it is a file; there are no links."""
        return self.has_bytes

    def is_dir(self) -> bool:
        """Returns whether it is a folder."""
        return not self.has_bytes


@contextlib.contextmanager
def reach(path: str) -> Iterator[tuple[Any, str]]:
    """Yields fsspec's file system of a path, and the path's key in it.

    Raises:
        RuntimeError: a package is missing.
        OSError: the package of the file system raised an error meanwhile.
    """
    scheme = path.partition("://")[0]
    try:
        import fsspec

        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        raise RuntimeError(
            f"{path}: found no package for {scheme}://, expected fsspec and one"
            " of its own. pip install 'pcam_tfdata[remote]' brings those of"
            " s3:// and gs://."
        ) from error
    with _errors_named(path):
        # A listing that is kept would not show what other processes write.
        yield fsspec.url_to_fs(path, use_listings_cache=False)


@contextlib.contextmanager
def _errors_named(path: str) -> Iterator[None]:
    """Turns what a package raises into an `OSError` that names the path."""
    try:
        yield
    except Exception as error:
        kind = type(error) if isinstance(error, OSError) else OSError
        kind = kind if kind.__module__ == "builtins" else OSError
        text = faults.one_line(error, 300) or type(error).__name__
        raise kind(
            f"{path}: cannot be used ({text}). Check the path, your"
            " credentials and the network."
        ) from error


def describe(path: str) -> dict[str, Any]:
    """Returns fsspec's `type` (file or directory), `size` and more; or {}."""
    try:
        with reach(path) as (system, key):
            return system.info(key)
    except FileNotFoundError:
        return {}


def read_bytes(path: str, start: int, num_bytes: int) -> bytes:
    """Returns bytes of a file from `start` on; fewer at its end."""
    with reach(path) as (system, key):
        try:
            return system.cat_file(key, start=start, end=start + num_bytes)
        except OSError as error:
            return _require_empty(error, system, key)


@contextlib.contextmanager
def open_whole(path: str, mode: str, **options: Any) -> Iterator[IO]:
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
        with reach(path) as (system, key):
            system.put_file(file.name, key)


@contextlib.contextmanager
def scan(path: str) -> Iterator[Iterator[Entry]]:
    """Lists a folder, as `os.scandir` does.

    Raises:
        FileNotFoundError: there is none.
    """
    with reach(path) as (system, key):
        listing = system.ls(key, detail=True)
    yield (
        Entry(
            name.rpartition("/")[2],
            entry["type"] != "directory",
            _hash_state(entry),
        )
        for entry in listing
        # Some stores hold an empty object that stands for the folder.
        if (name := entry["name"].rstrip("/")) != key.rstrip("/")
    )


def _hash_state(entry: dict[str, Any]) -> int:
    """Returns a hash of what a listing tells of the state of a file."""
    state = str([entry.get(key) for key in _STATE_KEYS])
    digest = hashlib.blake2b(state.encode(), digest_size=8)
    return int.from_bytes(digest.digest())


def read_many(paths: Sequence[str], max_bytes: int) -> Iterator[bytes]:
    """Yields the content of files of one store, in order, cut at `max_bytes`.

    Many are asked for at once: a store takes its time to answer, not to send.

    Raises:
        OSError: a file cannot be read.
    """
    for start in range(0, len(paths), _BLOCK_FILES):
        block = paths[start : start + _BLOCK_FILES]
        with reach(block[0]) as (system, _):
            keys = _strip_protocol(block)
            contents = system.cat_ranges(keys, 0, max_bytes, on_error="return")
        for path, key, content in zip(block, keys, contents, strict=True):
            if isinstance(content, Exception):
                with _errors_named(path):
                    content = _require_empty(content, system, key)
            yield content


def _require_empty(error: Exception, system: Any, key: str) -> bytes:
    """Returns no bytes if a file has none, which S3 refuses to send."""
    if system.info(key)["size"]:
        raise error
    return b""


def _strip_protocol(paths: Sequence[str]) -> list[str]:
    from fsspec import core

    return [core.strip_protocol(path) for path in paths]


def copy_all(pairs: Sequence[tuple[str, str]]) -> None:
    """Copies files of one store from one path to another, without fetching them.

    Raises:
        OSError: one cannot be copied.
    """
    if not pairs:
        return
    with reach(pairs[0][1]) as (system, _):
        # Lists, so that no path is taken for a pattern.
        system.copy(*map(_strip_protocol, zip(*pairs, strict=True)))


def remove_folder(path: str) -> None:
    """Removes all files of a folder, if it is there."""
    with (
        reach(path) as (system, key),
        concurrent.futures.ThreadPoolExecutor(_NUM_REMOVALS) as pool,
    ):
        # Not `rm` of the folder: to that, `records[1]` is also `records1`.
        names = [n for n in system.find(key) if n.startswith(f"{key}/")]
        list(pool.map(functools.partial(remove_key, system), names))


def remove_key(system: Any, key: str) -> None:
    """Removes a file of a file system, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        system.rm_file(key)
