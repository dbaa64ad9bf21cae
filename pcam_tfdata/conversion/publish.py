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
from pcam_tfdata.records import manifest
from pcam_tfdata.system import files, remote


def put_into_place(
    folder: str, output_dir: str, written: manifest.Manifest
) -> None:
    """Makes a finished folder the output, as `workspace.open_folder` allowed.

    Raises:
        OSError: the disk or the store refuses. Run again.
    """
    made = set(files.list_names(folder))
    names = manifest.list_files(written) & made  # None may be skipped.
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
