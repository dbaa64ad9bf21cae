"""A file that is locked while a process works on something."""

import contextlib
import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import IO

from pcam_tfdata.system import files

LOCK = "lock"  # Name of the file in a folder that is locked whole.
_POLL_SECONDS = 0.05
# Far more often than a job that ends can remove a folder just before this one.
_MOST_TRIES = 100

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
        with _open(path) as file:
            try:
                _lock(file, path, what, advice, is_shared)
            except RuntimeError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)
                continue
            # The holder before may have removed the file since it was opened.
            if not _is_at(file, path):
                continue
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
    if files.holds_others(folder, lambda n: n == LOCK or own.fullmatch(n)):
        raise FileExistsError(
            f"{folder}: found something other than {content}, expected a folder"
            " to make. Move it away, or choose another output."
        )
    if files.is_remote(folder):
        yield
        return
    path = os.path.join(folder, LOCK)
    with hold(path, what, "Wait for it, or choose another output."):
        try:
            yield
        finally:
            with contextlib.suppress(
                OSError
            ):  # It holds something, or is gone.
                os.remove(path)
                os.rmdir(folder)


def _open(path: str) -> IO:
    """Opens a file, made with its folder: one that ends may remove both."""
    folder = os.path.dirname(path)
    tries_left = _MOST_TRIES
    while True:
        tries_left -= 1
        try:
            os.makedirs(folder, exist_ok=True)
            return open(path, "a+", encoding="utf-8")
        except FileNotFoundError:
            if not tries_left:  # No folder can be made there.
                raise
        except FileExistsError:
            if not tries_left or not _is_folder_or_gone(folder):
                raise


def _is_folder_or_gone(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return True


def _lock(file: IO, path: str, what: str, advice: str, is_shared: bool) -> None:
    folder = os.path.dirname(path)
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise RuntimeError(
            f"{folder}: found that process {file.read() or 'unknown'} {what},"
            f" expected nobody. {advice}"
        ) from error
    except OSError as error:  # Of file systems without locks.
        _logger.warning(
            "%s: cannot be locked (%s); take care that no other process %s.",
            folder, error.strerror, what,
        )  # fmt: skip


def _is_at(file: IO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
