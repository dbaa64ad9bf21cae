"""A file that is locked while a process works on something."""

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from typing import IO

from pcam_tfdata.system import files

LOCK = "lock"  # Name of the file in a folder that is locked whole.
_POLL_SECONDS = 0.05

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def hold(
    path: str,
    what: str,
    advice: str,
    *,
    is_shared: bool = False,
    wait_seconds: float = 0,
) -> Iterator[None]:
    """Locks a file, which is made with its folder if it is not there.

    The system lets go of the lock when its holder ends, however it ends. Who
    holds it may remove the file.

    Args:
        path: Of the file; it gets the number of this process.
        what: What a holder does, for the error, as `is training there`.
        advice: What to do when there is another, a sentence.
        is_shared: Lets others hold it too that share it.
        wait_seconds: How long to wait for another process.

    Raises:
        RuntimeError: another process holds it.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "a+", encoding="utf-8") as file:
            if not _lock(file, path, what, is_shared):
                if time.monotonic() >= deadline:
                    file.seek(0)
                    raise RuntimeError(
                        f"{os.path.dirname(path)}: found that process"
                        f" {file.read() or 'unknown'} {what}, expected nobody."
                        f" {advice}"
                    )
                time.sleep(_POLL_SECONDS)
            # The holder before may have removed the file since it was opened.
            elif _is_at(file, path):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield
                return


@contextlib.contextmanager
def own_folder(
    folder: str, own: re.Pattern[str], content: str, what: str
) -> Iterator[None]:
    """Takes a folder for this process alone, which is made if it is not there.

    At the end it goes if it is empty. In a bucket nothing can be locked.

    Args:
        folder: Where.
        own: What names in it may be, beside that of the lock.
        content: What these are, for the error, as `jobs`.
        what: What a holder does, for the error, as `is training there`.

    Raises:
        FileExistsError: the folder holds something else, or is none.
        RuntimeError: another process holds it.
    """
    files.refuse_others(
        folder, lambda name: name == LOCK or own.fullmatch(name), content
    )
    if files.is_remote(folder):
        yield
        return
    path = os.path.join(folder, LOCK)
    with hold(path, what, "Wait for it, or choose another output."):
        try:
            yield
        finally:
            # It may hold something, or be gone.
            with contextlib.suppress(OSError):
                os.remove(path)
                os.rmdir(folder)


def _is_at(file: IO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: IO, path: str, what: str, is_shared: bool) -> bool:
    """Returns whether nobody else holds it."""
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # Of file systems without locks.
        _logger.warning(
            "%s: cannot be locked (%s); take care that no other process %s.",
            os.path.dirname(path), error.strerror, what,
        )  # fmt: skip
    return True
