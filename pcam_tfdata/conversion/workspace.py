"""The folder in which a conversion works, beside its output.

    OUTPUT.incomplete/lock        locked by the process that converts
    OUTPUT.incomplete/records/    becomes the output when all is done
    OUTPUT.incomplete/records-*/  instead of it, on Beam: a folder for each plan
    OUTPUT.incomplete/beam/       tasks on Beam and their results
    OUTPUT.incomplete/unpacked/   what a source had to unpack first
    OUTPUT.incomplete/replacing   in a bucket: what is copied to the output

What a killed job finished stays there, and the next one goes on from it.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator

from pcam_tfdata.beam import beam_pool
from pcam_tfdata.conversion import journal, replacement
from pcam_tfdata.records import manifest
from pcam_tfdata.system import faults, files, locks

_LOCK = "lock"
_RECORDS = "records"
_UNPACKED = "unpacked"
_BEAM = "beam"

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Workspace:
    """A folder that is there, and this process' own."""

    folder: str

    @property
    def records_dir(self) -> str:
        """A folder to write records into; it is there."""
        return os.path.join(self.folder, _RECORDS)

    @property
    def unpacked_dir(self) -> str:
        """A folder to be made, by a source that needs room."""
        return os.path.join(self.folder, _UNPACKED)

    @property
    def beam_dir(self) -> str:
        """A folder to be made, for tasks on Beam."""
        return os.path.join(self.folder, _BEAM)

    def open_records_of(self, plan: str) -> str:
        """Returns a folder for the records of one plan; those of others go.

        On Beam a job that was given up may still be at work somewhere. It writes
        into the folder of its own plan, the same bytes if it is this one.

        Args:
            plan: Its fingerprint.
        """
        chosen = f"{_RECORDS}-{plan}"
        for name in _list_records(self.folder):
            if name != chosen:
                files.remove_folder(os.path.join(self.folder, name))
        path = os.path.join(self.folder, chosen)
        files.make_folder(path)
        return path


def locate(output_dir: str) -> str:
    """Returns the folder in which a conversion to an output works."""
    return f"{output_dir}.incomplete"


@contextlib.contextmanager
def open_folder(
    output_dir: str, *, restart: bool, keep_finished: bool = False
) -> Iterator[Workspace]:
    """Gives this process alone folders to work in.

    They are removed at the end, and after an error if no shard is finished or
    the source is at fault: what is mended there may change any shard. In a
    bucket they stay for another job that has taken them over on Beam.

    Args:
        output_dir: Where the records will be.
        restart: Drops what an earlier job finished;
        keep_finished: unless that is a conversion's.

    Raises:
        RuntimeError: another process works there.
        FileExistsError: something else is there, or what is to be kept.
    """
    folder = locate(output_dir)
    _refuse_foreign(folder)
    with _lock(folder):
        place = Workspace(folder)
        if keep_finished:
            _refuse_finished(folder)
        if restart:
            _remove_folders(folder)
        files.make_folder(place.records_dir)
        for name in _list_records(folder):
            journal.remove_unfinished(os.path.join(folder, name))
        if _list_finished(folder):
            _logger.info("%s: going on from what is finished there.", folder)
        try:
            yield place
        except BaseException as error:
            is_source = isinstance(error, faults.BadInputError)
            is_of_use = not is_source and _list_finished(folder)
            if not is_of_use and not _is_taken_over(place):
                _remove(folder)
            raise
        files.remove(os.path.join(folder, replacement.NOTE))
        _remove(folder)


def _refuse_finished(folder: str) -> None:
    is_whole = any(
        files.is_file(os.path.join(folder, name, manifest.MANIFEST_FILE))
        for name in _list_records(folder)
    )
    if is_whole or _list_finished(folder):
        raise FileExistsError(
            f"{folder}: found a job that is not finished, expected none. Finish"
            " it, pass --overwrite to drop it, or choose another --output_dir."
        )


def _lock(folder: str) -> contextlib.AbstractContextManager[None]:
    if files.is_remote(folder):
        _logger.warning(
            "%s: cannot be locked; take care that no other job converts to this"
            " output.",
            folder,
        )
        return contextlib.nullcontext()
    return locks.hold(
        os.path.join(folder, _LOCK),
        "is converting to this output",
        "Wait for it, or choose another --output_dir.",
    )


def _is_taken_over(place: Workspace) -> bool:
    """Returns whether another job is at work in a bucket, which has no lock."""
    return files.is_remote(place.folder) and beam_pool.has_jobs(place.beam_dir)


def _refuse_foreign(folder: str) -> None:
    if files.holds_others(folder, _is_own):
        raise FileExistsError(
            f"{folder}: found something other than an unfinished conversion,"
            " expected a folder to make. Move it away, or choose another"
            " --output_dir."
        )


def _is_own(name: str) -> bool:
    return name in (_LOCK, _UNPACKED, _BEAM, replacement.NOTE) or _is_records(
        name
    )


def _is_records(name: str) -> bool:
    return name == _RECORDS or name.startswith(f"{_RECORDS}-")


def _list_records(folder: str) -> list[str]:
    return [name for name in files.list_names(folder) if _is_records(name)]


def _list_finished(folder: str) -> list[str]:
    return [
        shard
        for name in _list_records(folder)
        for shard in journal.list_finished(os.path.join(folder, name))
    ]


def _remove_folders(folder: str) -> None:
    for name in (_UNPACKED, _BEAM, *_list_records(folder)):
        files.remove_folder(os.path.join(folder, name))


def _remove(folder: str) -> None:
    _remove_folders(folder)
    if files.is_remote(folder):
        return
    os.remove(os.path.join(folder, _LOCK))
    with contextlib.suppress(OSError):  # Something was put there meanwhile.
        os.rmdir(folder)
