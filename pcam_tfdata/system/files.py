"""Files on a disk or in a bucket, and files written whole.

Paths with a scheme, such as `gs://bucket/records`, go through fsspec (`remote`). A
path without one is a file of the system, and is opened as ever.
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import IO, Any

from pcam_tfdata.system import remote

INCOMPLETE = ".incomplete"  # Ends the name of what is being written.


def is_remote(path: str) -> bool:
    """Returns whether a path names something that is not on a disk."""
    return "://" in path


def resolve(path: str) -> str:
    """Returns a path without links; a remote one without a slash at its end."""
    if not is_remote(path):
        return os.path.realpath(path)
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{rest.rstrip('/')}"


def size(path: str) -> int | None:
    """Returns the bytes of a file, or None if there is no such file."""
    if is_remote(path):
        entry = remote.describe(path)
        return entry["size"] if entry.get("type") == "file" else None
    return os.path.getsize(path) if os.path.isfile(path) else None


def is_file(path: str) -> bool:
    """Returns whether there is such a file."""
    return size(path) is not None


def is_folder(path: str) -> bool:
    """Returns whether there is such a folder; a bucket has none without files."""
    if is_remote(path):
        return remote.describe(path).get("type") == "directory"
    return os.path.isdir(path)


def refuse_others(
    folder: str,
    is_own: Callable[[str], object],
    what: str,
    output: str = "output",
) -> None:
    """Refuses a folder where anything but what a job makes there is.

    Args:
        folder: There or not, on a disk or in a bucket.
        is_own: Whether a name in it is the job's.
        what: What the job makes there, for the error.
        output: What to choose another one of, as the name of a flag.

    Raises:
        FileExistsError: it is such a folder, or no folder.
    """
    is_broken_link = os.path.islink(folder) and not os.path.exists(folder)
    with contextlib.suppress(NotADirectoryError):
        if not is_broken_link and all(map(is_own, list_names(folder))):
            return
    raise FileExistsError(
        f"{folder}: found something other than {what}, expected a folder to"
        f" make. Move it away, or choose another {output}."
    )


def is_stream(path: str) -> bool:
    """Returns whether what is there can only be written to, not replaced.

    A pipe, a terminal, a device, a file without a name, or one that is open as
    stdout or stderr (`/dev/stdout`); links are followed.
    """
    if not os.path.exists(path) or os.path.isdir(path):
        return False
    is_named = os.path.isfile(os.path.realpath(path))
    return not is_named or _find_descriptor(path) is not None


def _find_descriptor(path: str) -> int | None:
    """Returns 1 or 2 where what is there is open as stdout or stderr."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(path), os.fstat(number)):
                return number
    return None


def is_within(path: str, folder: str) -> bool:
    """Returns whether a path is a folder's, or of something in it.

    Both are as `resolve` gives them.
    """
    return os.path.join(path, "").startswith(os.path.join(folder, ""))


def scan(folder: str) -> contextlib.AbstractContextManager[Iterator[Any]]:
    """Lists a folder, as `os.scandir` does."""
    return remote.scan(folder) if is_remote(folder) else os.scandir(folder)


def list_names(folder: str) -> list[str]:
    """Returns the names in a folder; none if it is not there."""
    try:
        with scan(folder) as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError:
        return []


def stamp(path: str) -> str:
    """Returns what tells a file from others that had its name.

    Its size and times; on a disk the time of its last change too, which no
    program sets back.
    """
    if is_remote(path):
        with remote.reach(path) as (system, key):
            return f"{system.size(key)} {system.modified(key)}"
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def read_bytes(path: str, start: int, num_bytes: int) -> bytes:
    """Returns bytes of a file from `start` on; fewer at its end."""
    if is_remote(path):
        return remote.read_bytes(path, start, num_bytes)
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(num_bytes)


def open_file(path: str, mode: str = "r", **options: Any) -> IO:
    """Opens a file for reading, as `open` does; text is UTF-8."""
    if "b" not in mode:
        options = {"encoding": "utf-8", **options}
    if is_remote(path):
        with remote.reach(path) as (system, key):
            return system.open(key, mode, **options)
    return open(path, mode, **options)


@contextlib.contextmanager
def open_whole(
    path: str,
    mode: str = "w",
    *,
    sync: bool = False,
    is_shared: bool = False,
    **options: Any,
) -> Iterator[IO]:
    """Opens a file to write that is at `path` once it is whole; text is UTF-8.

    After an error nothing of it is left, and what was there before stays; an
    existing file gives its mode to the new one.

    Args:
        path: Where. Of a link, what it points at is written; a pipe or a device
            is written to as it is, see `is_stream`.
        mode: `w` or `wb`.
        sync: Whether it must be on the disk before it has its name, so that a
            failure of power leaves no file that is shorter.
        is_shared: Whether others may write it at the same time. Then it has a
            name of its own until it is whole, and the last one stays.
        **options: Of `open`.

    Raises:
        OSError: it cannot be written; `filename` says which, on a disk.
    """
    if "b" not in mode:
        options = {"encoding": "utf-8", **options}
    if is_remote(path):
        with remote.open_whole(path, mode, **options) as file:
            yield file
        return
    if is_stream(path):
        # To open stdout by its path would begin a redirected file anew.
        number = _find_descriptor(path)
        stream = path if number is None else os.dup(number)
        with open(stream, mode, **options) as file:
            yield file
        return
    path = os.path.realpath(path)
    attempt = f".{secrets.token_hex(4)}" if is_shared else ""
    temporary = f"{path}{attempt}{INCOMPLETE}"
    try:
        with open(temporary, mode, **options) as file:
            with contextlib.suppress(OSError):  # Not there, or on odd disks.
                shutil.copymode(path, temporary)
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        # A full disk names no file; an error that is but a text needs none.
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = path
        raise


@contextlib.contextmanager
def folder_whole(path: str) -> Iterator[str]:
    """Yields a new folder on a disk, which has this path once all is written.

    There must be none but an empty folder at the path by then. Of a process that is
    killed a folder is left that the next one removes; of an error none is.
    """
    unfinished = f"{path}{INCOMPLETE}"
    remove_folder(unfinished)  # Of a process that was killed.
    os.makedirs(unfinished)
    try:
        yield unfinished
        os.rename(unfinished, path)
    finally:
        remove_folder(unfinished)


def write_text(path: str, text: str, *, is_shared: bool = False) -> None:
    """Writes a text file that appears whole or not at all."""
    with open_whole(path, is_shared=is_shared) as file:
        file.write(text)


def write_json(path: str, content: object) -> None:
    """Writes a JSON file, indented by 1, that appears whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file that others may write too; it appears whole."""
    with open_whole(path, "wb", is_shared=True) as file:
        file.write(data)


def make_folder(path: str) -> None:
    """Makes a folder on a disk; in a bucket, files make theirs."""
    if not is_remote(path):
        os.makedirs(path, exist_ok=True)


def remove(path: str) -> None:
    """Removes a file, if it is there."""
    if is_remote(path):
        with remote.reach(path) as (system, key):
            remote.remove_key(system, key)
        return
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def remove_folder(path: str) -> None:
    """Removes a folder and what is in it, as far as that can be done."""
    if is_remote(path):
        remote.remove_folder(path)
    else:
        shutil.rmtree(path, ignore_errors=True)
