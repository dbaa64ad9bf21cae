"""The folder in which a conversion works, beside its output.

    OUTPUT.incomplete/lock        locked by the process that converts
    OUTPUT.incomplete/records/    becomes the output when all is done
    OUTPUT.incomplete/records-*/  instead of it, on Beam: a folder for each plan
    OUTPUT.incomplete/beam/       tasks on Beam and their results
    OUTPUT.incomplete/unpacked/   what a source had to unpack first
    OUTPUT.incomplete/replaced/   old records, while the new ones are renamed
    OUTPUT.incomplete/replacing   in a bucket: what is copied to the output

What a killed job finished stays there, and the next one goes on from it.
"""

import contextlib
import logging
import os
import re
from collections.abc import Iterator

from pcam_tfdata.conversion import journal
from pcam_tfdata.records import manifest, sharding
from pcam_tfdata.runs import outputs
from pcam_tfdata.system import faults, files, locks

BEAM, UNPACKED = "beam", "unpacked"
REPLACED, REPLACING = "replaced", "replacing"
_RECORDS = "records"
_FOLDERS = re.compile(rf"{_RECORDS}(-[0-9a-f]+)?|{BEAM}|{UNPACKED}")
_OWN = re.compile(rf"{_FOLDERS.pattern}|{REPLACED}|{REPLACING}")
_OF_A_DISK = ("file", "local")  # What fsspec calls it.

_logger = logging.getLogger(__name__)


def locate(output_dir: str, *names: str) -> str:
    """Returns the folder in which an output is made, or what is in it."""
    return os.path.join(f"{output_dir}.incomplete", *names)


def take_records_of(output_dir: str, plan: str) -> str:
    """Returns a folder for the records of one plan; those of others go.

    On Beam a job that was given up may still be at work somewhere. It writes
    into the folder of its own plan, the same bytes if it is this one.

    Args:
        output_dir: Where the records will be.
        plan: A fingerprint of all shards.
    """
    records_dir = locate(output_dir, f"{_RECORDS}-{plan}")
    for path in _list_records(output_dir):
        if path != records_dir:
            files.remove_folder(path)
    files.make_folder(records_dir)
    return records_dir


@contextlib.contextmanager
def open_folder(
    output_dir: str, *, overwrite: bool, resumes: bool = True
) -> Iterator[str]:
    """Gives this process alone a folder to work in; yields that of records.

    It is removed at the end, and after an error if no shard is finished or the
    source is at fault: what is mended there may change any shard.

    Args:
        output_dir: Where the records will be.
        overwrite: Whether finished records may be there. Drops what an earlier
            job finished.
        resumes: Whether this job goes on from what an earlier one finished.
            Else it refuses to drop that.

    Raises:
        RuntimeError: another process works there.
        FileExistsError, ValueError: something else is there, or at the output,
            or a folder cannot be put there.
    """
    _check_output(output_dir, overwrite)
    folder, is_remote = locate(output_dir), files.is_remote(output_dir)
    if is_remote:
        _logger.warning(
            "%s: cannot be locked; take care that no other job converts to this"
            " output.",
            folder,
        )
    content, what = "an unfinished conversion", "is converting to this output"
    with locks.own_folder(folder, _OWN, content, what):
        # Again: another job may have finished before this one held the lock.
        _check_output(output_dir, overwrite)
        _clean(output_dir, overwrite, resumes)
        files.make_folder(locate(output_dir, _RECORDS))
        try:
            yield locate(output_dir, _RECORDS)
        except BaseException as error:
            is_source = isinstance(error, faults.BadInputError)
            is_of_use = not is_source and _has_finished_shards(output_dir)
            # In a bucket another job may have taken it over.
            if not is_of_use and not is_remote:
                _remove_folders(output_dir)
            raise
        files.remove(locate(output_dir, REPLACING))
        _remove_folders(output_dir)


def _clean(output_dir: str, overwrite: bool, resumes: bool) -> None:
    """Leaves of an earlier job what this one goes on from."""
    has_finished, folder = _has_finished_shards(output_dir), locate(output_dir)
    if overwrite or not (resumes or has_finished):
        _remove_folders(output_dir)
        return
    if not resumes:
        raise FileExistsError(
            f"{folder}: found a job that is not finished, expected none. Finish"
            " it, pass --overwrite to drop it, or choose another --output_dir."
        )
    for path in _list_files(output_dir):
        if path.endswith(files.INCOMPLETE):  # Of a process that was killed.
            files.remove(path)
    if has_finished:
        _logger.info("%s: going on from what is finished there.", folder)


def _check_output(output_dir: str, overwrite: bool) -> None:
    """Refuses a place where a records folder cannot be put."""
    if files.is_remote(output_dir):
        _check_remote(output_dir)
    else:
        outputs.check_new(output_dir, "--output_dir")
        if os.path.ismount(output_dir) or output_dir == os.path.realpath("."):
            raise FileExistsError(
                f"{output_dir}: found a mount point or the working folder,"
                " expected a folder that can be renamed. Choose one inside it"
                " as --output_dir."
            )
    has_manifest = files.is_file(f"{output_dir}/{manifest.MANIFEST_FILE}")
    if has_manifest and not overwrite:
        raise FileExistsError(
            f"{output_dir}: found finished records. Pass --overwrite to replace"
            " them, or choose another --output_dir."
        )
    is_own = (
        _is_of_records if has_manifest else _list_noted(output_dir).__contains__
    )
    files.refuse_others(output_dir, is_own, "finished records", "--output_dir")


def _check_remote(output_dir: str) -> None:
    """Refuses what is no folder in a bucket."""
    scheme, _, rest = output_dir.partition("://")
    if scheme in _OF_A_DISK:
        raise ValueError(
            f"{output_dir}: found a folder on a disk with {scheme}:// before"
            f" it, expected its path. Pass --output_dir={rest}."
        )
    if "/" not in rest or "?" in rest:  # Stores end a name at a question mark.
        raise ValueError(
            f"--output_dir: found {output_dir}, expected a folder in a bucket"
            " whose name has no question mark. Choose one."
        )


def _is_of_records(name: str) -> bool:
    return name in manifest.FILES or sharding.is_shard_name(name)


def _list_noted(output_dir: str) -> set[str]:
    """Returns which files a job that was killed was copying there."""
    note = locate(output_dir, REPLACING)
    if not files.is_file(note):
        return set()
    with files.open_file(note) as file:
        return set(file.read().splitlines())


def _has_finished_shards(output_dir: str) -> bool:
    """Returns whether an earlier job finished shards, to go on from."""
    return any(
        path.endswith(journal.ENDING) for path in _list_files(output_dir)
    )


def _remove_folders(output_dir: str) -> None:
    names = files.list_names(locate(output_dir))
    for name in filter(_FOLDERS.fullmatch, names):
        files.remove_folder(locate(output_dir, name))


def _list_records(output_dir: str) -> list[str]:
    return [
        locate(output_dir, name)
        for name in files.list_names(locate(output_dir))
        if name.startswith(_RECORDS)
    ]


def _list_files(output_dir: str) -> list[str]:
    return [
        os.path.join(folder, name)
        for folder in _list_records(output_dir)
        for name in files.list_names(folder)
    ]
