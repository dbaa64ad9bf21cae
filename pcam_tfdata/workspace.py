"""The folder in which a conversion works, beside its output.

    OUTPUT.incomplete/lock        locked by the process that converts
    OUTPUT.incomplete/records/    becomes the output when all is done
    OUTPUT.incomplete/unpacked/   what a source had to unpack first

What a killed job finished stays there, and the next one goes on from it.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
from collections.abc import Iterator

from pcam_tfdata import faults, journal, locks

_LOCK = "lock"
_RECORDS = "records"
_UNPACKED = "unpacked"

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Folders that are there.

    Attributes:
        records_dir: To write records into.
        unpacked_dir: To be made, by a source that needs room.
    """

    records_dir: str
    unpacked_dir: str


@contextlib.contextmanager
def open_folder(output_dir: str, *, restart: bool) -> Iterator[Workspace]:
    """Gives this process alone folders to work in.

    They are removed at the end, and after an error if no shard is finished or
    the source is at fault: what is mended there may change any shard.

    Args:
        output_dir: Where the records will be.
        restart: Drops what an earlier job finished.

    Raises:
        RuntimeError: another process works there.
        FileExistsError: something else is there.
    """
    folder = f"{output_dir}.incomplete"
    _refuse_foreign(folder)
    lock = os.path.join(folder, _LOCK)
    with locks.hold(
        lock,
        "is converting to this output",
        "Wait for it, or choose another --output_dir.",
    ):
        records_dir = os.path.join(folder, _RECORDS)
        if restart:
            _remove_folders(folder)
        os.makedirs(records_dir, exist_ok=True)
        if journal.list_finished(records_dir):
            _logger.info("%s: going on from what is finished there.", folder)
        try:
            yield Workspace(records_dir, os.path.join(folder, _UNPACKED))
        except BaseException as error:
            is_source = isinstance(error, faults.BadInputError)
            if is_source or not journal.list_finished(records_dir):
                _remove(folder)
            raise
        _remove(folder)


def _refuse_foreign(folder: str) -> None:
    if not os.path.lexists(folder):
        return
    own = {_LOCK, _RECORDS, _UNPACKED}
    if not os.path.isdir(folder) or set(os.listdir(folder)) - own:
        raise FileExistsError(
            f"{folder}: found something other than an unfinished conversion,"
            " expected a folder to make. Move it away, or choose another"
            " --output_dir."
        )


def _remove_folders(folder: str) -> None:
    for name in (_RECORDS, _UNPACKED):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def _remove(folder: str) -> None:
    _remove_folders(folder)
    os.remove(os.path.join(folder, _LOCK))
    with contextlib.suppress(OSError):  # Something was put there meanwhile.
        os.rmdir(folder)
