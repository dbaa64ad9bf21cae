"""Records in a bucket, which are put into their place by copying.

A bucket has no folders to rename. So the files of a finished conversion are
copied, within the store, to where they belong: the manifest goes first and comes
last, so that at no time a folder with a manifest holds anything but its records.
What is to be there is noted before, so that a job that was killed at it can be
run again:

    OUTPUT.incomplete/replacing    names of the files, a line each
"""

import os
from collections.abc import Iterable

from pcam_tfdata.records import manifest
from pcam_tfdata.system import files, remote

NOTE = "replacing"


def copy(folder: str, output_dir: str, names: Iterable[str]) -> None:
    """Copies files of a folder, which replace all that is at the output.

    Args:
        folder: Of the finished records.
        output_dir: Where they belong; `publish.check_output` was asked.
        names: Of the files.

    Raises:
        OSError: the store refuses. Run again.
    """
    there, names = set(files.list_names(output_dir)), set(names)
    note = "".join(f"{name}\n" for name in sorted(there | names))
    files.write_text(_note_path(output_dir), note)
    for name in [manifest.MANIFEST_FILE, *sorted(there - names)]:
        files.remove(os.path.join(output_dir, name))
    _copy(folder, output_dir, sorted(names - {manifest.MANIFEST_FILE}))
    _copy(folder, output_dir, [manifest.MANIFEST_FILE])


def list_unfinished(output_dir: str) -> set[str]:
    """Returns the names of files that a killed job may have left or copied."""
    path = _note_path(output_dir)
    if not files.is_remote(output_dir) or not files.is_file(path):
        return set()
    with files.open_file(path) as file:
        return set(file.read().splitlines())


def _note_path(output_dir: str) -> str:
    return os.path.join(f"{output_dir}.incomplete", NOTE)


def _copy(folder: str, output_dir: str, names: Iterable[str]) -> None:
    remote.copy_all(
        [
            (os.path.join(folder, name), os.path.join(output_dir, name))
            for name in names
        ]
    )
