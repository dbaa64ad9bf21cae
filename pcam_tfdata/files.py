"""Files of a records folder, on a disk or in a bucket, and files written whole.

Paths with a scheme, such as `gs://bucket/records`, are read by TensorFlow's file
systems; it is imported for them alone.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from types import ModuleType
from typing import IO

INCOMPLETE = ".incomplete"  # Ends the name of what is being written.


def is_remote(path: str) -> bool:
    """Returns whether a path names something that is not on a disk."""
    return "://" in path


def size(path: str) -> int | None:
    """Returns the bytes of a file, or None if there is no such file."""
    if is_remote(path):
        tf = _tensorflow()
        try:
            return tf.io.gfile.stat(path).length
        except tf.errors.NotFoundError:
            return None
    return os.path.getsize(path) if os.path.isfile(path) else None


def read_bytes(path: str, start: int, num_bytes: int) -> bytes:
    """Returns bytes of a file from `start` on; fewer at its end."""
    with open_file(path, "rb") as file:
        file.seek(start)
        return file.read(num_bytes)


def open_file(path: str, mode: str = "r", **options: object) -> IO:
    """Opens a file for reading, as `open` does; text is UTF-8."""
    if is_remote(path):
        return _tensorflow().io.gfile.GFile(path, mode)
    return open(path, mode, **options)


@contextlib.contextmanager
def open_whole(
    path: str,
    mode: str = "w",
    *,
    sync: bool = False,
    is_shared: bool = False,
    **options: object,
) -> Iterator[IO]:
    """Opens a file to write that is at `path` once it is whole; text is UTF-8.

    After an error nothing of it is left, and what was there before stays.

    Args:
        path: Where, on a disk.
        mode: `w` or `wb`.
        sync: Whether it must be on the disk before it has its name, so that a
            failure of power leaves no file that is shorter.
        is_shared: Whether others may be writing the same file; the last to end
            wins. What a killed process leaves has then a name of its own.
        **options: Of `open`.

    Raises:
        OSError: it cannot be written; `filename` says which.
    """
    who = f".{socket.gethostname()}-{os.getpid()}" if is_shared else ""
    temporary = f"{path}{who}{INCOMPLETE}"
    if "b" not in mode:
        options = {"encoding": "utf-8", **options}
    try:
        with open(temporary, mode, **options) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        if isinstance(error, OSError):  # A full disk names no file.
            error.filename = error.filename or path
        raise


def write_text(path: str, text: str) -> None:
    """Writes a text file that appears whole or not at all."""
    with open_whole(path) as file:
        file.write(text)


def _tensorflow() -> ModuleType:
    import tensorflow

    return tensorflow
