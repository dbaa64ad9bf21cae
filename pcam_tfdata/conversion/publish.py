"""Puts a finished folder of records where nothing else may be.

On a disk it is renamed. A bucket has no folders to rename, so files are copied,
within the store: the manifest goes first and comes last, so that at no time a
folder with a manifest holds anything but its records. What is to be there is
noted before, so that a job that was killed at it can be run again:

    OUTPUT.incomplete/replacing    names of the files, a line each
"""

import os
import shutil
from collections.abc import Iterable

from pcam_tfdata.records import manifest, records_folder, sharding
from pcam_tfdata.runs import outputs
from pcam_tfdata.system import files, remote

NOTE = "replacing"
_OF_A_DISK = ("file", "local")  # What fsspec calls it.


def locate_incomplete(output_dir: str) -> str:
    """Returns the folder in which a conversion to an output works."""
    return f"{output_dir}.incomplete"


def locate_replaced(output_dir: str) -> str:
    """Returns where records are moved for the time of their replacement."""
    return f"{output_dir}.replaced"


def check_output(output_dir: str, *, overwrite: bool) -> None:
    """Refuses a place where a records folder cannot be put.

    Raises:
        FileExistsError: finished records are there and `overwrite` is false, or
            other things are, or where they would be moved to; or the folder
            cannot be renamed over.
        ValueError: a folder to write cannot be named so.
    """
    if files.is_remote(output_dir):
        _check_remote(output_dir)
    else:
        _check_on_disk(output_dir)
        if not os.path.exists(output_dir):
            return
    names = set(files.list_names(output_dir))
    if manifest.MANIFEST_FILE in names and not overwrite:
        raise FileExistsError(
            f"{output_dir}: found finished records. Pass --overwrite to replace"
            " them, or choose another --output_dir."
        )
    foreign = sorted(names - _list_own(output_dir, names))
    if foreign:
        raise FileExistsError(
            f"{output_dir}: found a folder with other files in it"
            f" ({foreign[0]}), expected none, an empty one or finished records."
            " Choose another --output_dir."
        )


def _check_remote(output_dir: str) -> None:
    """Refuses what is no folder in a bucket."""
    scheme, _, rest = output_dir.partition("://")
    if scheme in _OF_A_DISK:
        raise ValueError(
            f"{output_dir}: found a folder on a disk with {scheme}:// before"
            f" it, expected its path. Pass --output_dir={rest}."
        )
    if not rest.partition("/")[2]:
        raise FileExistsError(
            f"{output_dir}: found a whole bucket, expected a folder in it."
            " Choose one as --output_dir."
        )
    if "?" in output_dir:
        raise ValueError(
            f"{output_dir}: found a question mark, after which stores expect"
            " the version of a file, expected a name without. Choose another"
            " --output_dir."
        )


def _check_on_disk(output_dir: str) -> None:
    """Refuses what cannot be renamed over, or where something would be lost."""
    outputs.check_new(output_dir, "--output_dir")
    replaced = locate_replaced(output_dir)
    what = "records that were being replaced"
    files.refuse_others(replaced, _is_of_records, what, "--output_dir")
    if os.path.exists(output_dir) and not os.path.isdir(output_dir):
        raise FileExistsError(
            f"{output_dir}: found a file, expected a folder to be made there."
            " Choose another --output_dir."
        )
    if os.path.ismount(output_dir) or output_dir == os.path.realpath("."):
        raise FileExistsError(
            f"{output_dir}: found a mount point or the working folder, expected"
            " a folder that can be renamed. Choose one inside it as"
            " --output_dir."
        )


def _is_of_records(name: str) -> bool:
    return name in manifest.FILES or sharding.is_shard_name(name)


def _list_own(output_dir: str, names: set[str]) -> set[str]:
    """Returns which files a conversion wrote there, or was copying."""
    if manifest.MANIFEST_FILE in names:
        try:
            records = records_folder.open_folder(output_dir)
            return manifest.list_files(records.content)
        except ValueError:
            return set()  # What a damaged manifest names is anyone's guess.
    note = os.path.join(locate_incomplete(output_dir), NOTE)
    if not files.is_remote(output_dir) or not files.is_file(note):
        return set()
    with files.open_file(note) as file:
        return set(file.read().splitlines())


def put_into_place(
    folder: str, output_dir: str, written: manifest.Manifest
) -> None:
    """Makes a finished folder the output, as `check_output` allowed.

    Raises:
        OSError: the disk or the store refuses. Run again.
    """
    names = manifest.list_files(written)
    if not files.is_file(os.path.join(folder, manifest.SKIPPED_FILE)):
        names.discard(manifest.SKIPPED_FILE)
    if files.is_remote(output_dir):
        _copy_into_place(folder, output_dir, names)
        return
    # Last: until then, a killed job need not write a shard again.
    for name in set(os.listdir(folder)) - names:
        os.remove(os.path.join(folder, name))
    replaced = locate_replaced(output_dir)
    shutil.rmtree(replaced, ignore_errors=True)
    if os.path.isdir(output_dir):
        os.rename(output_dir, replaced)
    try:
        os.rename(folder, output_dir)
    except OSError:
        if os.path.isdir(replaced):
            os.rename(replaced, output_dir)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _copy_into_place(folder: str, output_dir: str, names: set[str]) -> None:
    """Copies files of a folder, which replace all that is at the output."""
    before = set(files.list_names(output_dir))
    note = "".join(f"{name}\n" for name in sorted(before | names))
    files.write_text(os.path.join(locate_incomplete(output_dir), NOTE), note)
    for name in [manifest.MANIFEST_FILE, *sorted(before - names)]:
        files.remove(os.path.join(output_dir, name))
    _copy(folder, output_dir, sorted(names - {manifest.MANIFEST_FILE}))
    _copy(folder, output_dir, [manifest.MANIFEST_FILE])


def _copy(folder: str, output_dir: str, names: Iterable[str]) -> None:
    remote.copy_all(
        [
            (os.path.join(folder, name), os.path.join(output_dir, name))
            for name in names
        ]
    )
