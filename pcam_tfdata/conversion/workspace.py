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
import logging
import os
import re
from collections.abc import Iterator

from pcam_tfdata.conversion import journal, publish
from pcam_tfdata.records import manifest
from pcam_tfdata.system import faults, files, locks

_RECORDS = "records"
_FOLDERS = re.compile(rf"{_RECORDS}(-[0-9a-f]+)?|unpacked|beam")
_OWN = re.compile(rf"{_FOLDERS.pattern}|{publish.NOTE}")

_logger = logging.getLogger(__name__)


class Workspace:
    """A folder of a conversion.

    Args:
        folder: Where it is.

    Attributes:
        records_dir: Where to write records.
        unpacked_dir: A folder to be made, by a source that needs room.
        beam_dir: A folder to be made, for tasks on Beam.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.records_dir = os.path.join(folder, _RECORDS)
        self.unpacked_dir = os.path.join(folder, "unpacked")
        self.beam_dir = os.path.join(folder, "beam")

    def take_records_of(self, plan: str) -> None:
        """Takes a folder for the records of one plan; those of others go.

        On Beam a job that was given up may still be at work somewhere. It
        writes into the folder of its own plan, the same bytes if it is this one.

        Args:
            plan: Its fingerprint.
        """
        self.records_dir = os.path.join(self._folder, f"{_RECORDS}-{plan}")
        for path in self._list_records():
            if path != self.records_dir:
                files.remove_folder(path)
        files.make_folder(self.records_dir)

    def has_finished_shards(self) -> bool:
        """Returns whether an earlier job finished shards, to go on from."""
        return any(name.endswith(journal.ENDING) for name in self._list_files())

    def has_manifest(self) -> bool:
        """Returns whether an earlier job wrote all files."""
        return manifest.MANIFEST_FILE in self._list_files()

    def remove_unfinished(self) -> None:
        """Removes what killed processes were writing."""
        for path in self._list_records():
            for name in files.list_names(path):
                if name.endswith(files.INCOMPLETE):
                    files.remove(os.path.join(path, name))

    def remove_all(self) -> None:
        """Removes the folders of a conversion."""
        for name in filter(_FOLDERS.fullmatch, files.list_names(self._folder)):
            files.remove_folder(os.path.join(self._folder, name))

    def _list_files(self) -> list[str]:
        return [
            name
            for path in self._list_records()
            for name in files.list_names(path)
        ]

    def _list_records(self) -> list[str]:
        return [
            os.path.join(self._folder, name)
            for name in files.list_names(self._folder)
            if name.startswith(_RECORDS)
        ]


def refuse_unfinished(output_dir: str) -> None:
    """Refuses an output of which a conversion left something finished.

    Raises:
        FileExistsError: it did.
    """
    folder = publish.locate_incomplete(output_dir)
    if not files.is_folder(folder):
        return
    space = Workspace(folder)
    if space.has_finished_shards() or space.has_manifest():
        raise FileExistsError(
            f"{folder}: found a job that is not finished, expected none. Finish"
            " it, pass --overwrite to drop it, or choose another --output_dir."
        )


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
    folder = publish.locate_incomplete(output_dir)
    if files.is_remote(folder):
        _logger.warning(
            "%s: cannot be locked; take care that no other job converts to this"
            " output.",
            folder,
        )
    content, what = "an unfinished conversion", "is converting to this output"
    with locks.own_folder(folder, _OWN, content, what):
        space = Workspace(folder)
        if restart:
            space.remove_all()
        files.make_folder(space.records_dir)
        space.remove_unfinished()
        if space.has_finished_shards():
            _logger.info("%s: going on from what is finished there.", folder)
        try:
            yield space
        except BaseException as error:
            is_source = isinstance(error, faults.BadInputError)
            is_of_use = not is_source and space.has_finished_shards()
            # In a bucket another job may have taken them over.
            if not is_of_use and not files.is_remote(folder):
                space.remove_all()
            raise
        files.remove(os.path.join(folder, publish.NOTE))
        space.remove_all()
