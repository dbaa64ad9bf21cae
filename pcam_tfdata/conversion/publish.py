"""Puts a finished folder of records where nothing else may be.

On a disk it is renamed. A bucket has no folders to rename, so files are copied,
within the store: the manifest goes first and comes last, so that at no time a
folder with a manifest holds anything but its records. What is to be there is
noted before, so that a job that was killed at it can be run again:

    OUTPUT.incomplete/replacing    names of the files, a line each
"""

import os
import shutil

from pcam_tfdata.conversion import workspace
from pcam_tfdata.records import manifest, sharding
from pcam_tfdata.runs import outputs
from pcam_tfdata.system import files, remote

_OF_A_DISK = ("file", "local")  # What fsspec calls it.


def check_output(output_dir: str, *, overwrite: bool) -> None:
    """Refuses a place where a records folder cannot be put.

    Raises:
        FileExistsError: finished records are there and `overwrite` is false, or
            other things are; or the folder cannot be renamed over.
        ValueError: a folder to write cannot be named so.
    """
    if files.is_remote(output_dir):
        _check_remote(output_dir)
    else:
        _check_on_disk(output_dir)
    path = os.path.join(output_dir, manifest.MANIFEST_FILE)
    has_manifest = files.is_file(path)
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
    if "/" not in rest:
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
    """Refuses what cannot be renamed over, and what lies in something whole."""
    outputs.check_new(output_dir, "--output_dir")
    if os.path.ismount(output_dir) or output_dir == os.path.realpath("."):
        raise FileExistsError(
            f"{output_dir}: found a mount point or the working folder, expected"
            " a folder that can be renamed. Choose one inside it as"
            " --output_dir."
        )


def _is_of_records(name: str) -> bool:
    return name in manifest.FILES or sharding.is_shard_name(name)


def _list_noted(output_dir: str) -> set[str]:
    """Returns which files a job that was killed was copying there."""
    note = workspace.locate(output_dir, workspace.REPLACING)
    if not files.is_file(note):
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
    made = set(files.list_names(folder))
    names = manifest.list_files(written)
    if manifest.SKIPPED_FILE not in made:
        names.discard(manifest.SKIPPED_FILE)
    if files.is_remote(output_dir):
        _copy_into_place(folder, output_dir, names)
        return
    # Last: until then, a killed job need not write a shard again.
    for name in made - names:
        os.remove(os.path.join(folder, name))
    replaced = workspace.locate(output_dir, workspace.REPLACED)
    shutil.rmtree(replaced, ignore_errors=True)
    try:
        if os.path.isdir(output_dir):
            os.rename(output_dir, replaced)
        os.rename(folder, output_dir)
    except BaseException:
        if os.path.isdir(replaced) and not os.path.exists(output_dir):
            os.rename(replaced, output_dir)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _copy_into_place(folder: str, output_dir: str, names: set[str]) -> None:
    """Copies files of a folder, which replace all that is at the output."""
    before = set(files.list_names(output_dir))
    files.write_text(
        workspace.locate(output_dir, workspace.REPLACING),
        "".join(f"{name}\n" for name in sorted(before | names)),
    )
    for name in [manifest.MANIFEST_FILE, *sorted(before - names)]:
        files.remove(os.path.join(output_dir, name))
    others = sorted(names - {manifest.MANIFEST_FILE})
    for some in (others, [manifest.MANIFEST_FILE]):
        remote.copy_all(
            [
                (os.path.join(folder, name), os.path.join(output_dir, name))
                for name in some
            ]
        )
