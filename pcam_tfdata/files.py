"""Files of a records folder, on a disk or in a bucket.

Paths with a scheme, such as `gs://bucket/records`, are read by TensorFlow's file
systems; it is imported for them alone.
"""

import os
from types import ModuleType
from typing import IO


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


def _tensorflow() -> ModuleType:
    import tensorflow

    return tensorflow
