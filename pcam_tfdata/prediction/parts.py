"""Parts of a prediction, a file a shard, which a killed job leaves behind.

They lie in a folder beside the output:

    job.json        hashes of the model and the records, and the split
    lock            locked by the processes that predict
    SHARD.logits    the logits of a shard's patches: float32, nothing else
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from pcam_tfdata.records import records_folder
from pcam_tfdata.system import files, locks

_JOB = "job.json"
_LOCK = "lock"
_ENDING = ".logits"
_DROP_SECONDS = 2  # Far more than `_drop_idle_job` has the lock.
_POLL_SECONDS = 0.05
_LOGIT = np.dtype("<f4")
# A job, the lock, a part, and what a killed process was writing, maybe under a
# name of its own.
_OWN = re.compile(
    rf"{_LOCK}|({_JOB}|.+{_ENDING})(\.[\w.-]+)?({files.INCOMPLETE})?"
)


class Parts:
    """The parts in a folder, which is there and locked: see `open_folder`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def has(self, shard: records_folder.ShardFile) -> bool:
        """Returns whether a shard has a sound part."""
        try:
            self.read(shard)
        except (OSError, ValueError):
            return False
        return True

    def read(self, shard: records_folder.ShardFile) -> np.ndarray:
        """Returns the logits of a shard.

        Raises:
            FileNotFoundError, ValueError: it has no part, or a damaged one.
        """
        path = self._path(shard)
        with open(path, "rb") as file:
            found = file.read()
        if len(found) != shard.num_records * _LOGIT.itemsize:
            raise ValueError(
                f"{path}: found {len(found):,} bytes, expected"
                f" {shard.num_records:,} logits. Predict again."
            )
        return np.frombuffer(found, _LOGIT)

    def write(self, shard: records_folder.ShardFile, logit: np.ndarray) -> None:
        """Writes the part of a shard, whole or not at all."""
        with files.open_whole(
            self._path(shard), "wb", sync=True, is_shared=True
        ) as file:
            file.write(logit.astype(_LOGIT).tobytes())

    def _path(self, shard: records_folder.ShardFile) -> str:
        name = os.path.basename(shard.path)
        return os.path.join(self._folder, f"{name}{_ENDING}")


def cut(
    results: Iterable[dict[str, np.ndarray]],
    shards: Sequence[records_folder.ShardFile],
) -> Iterator[tuple[records_folder.ShardFile, np.ndarray]]:
    """Yields shards with their logits, each as soon as it is complete.

    Args:
        results: Of batches, in order; the first may begin before the shards.
        shards: One after the other, up to the last that there are results of.

    Raises:
        RuntimeError: a patch has no result, or two.
    """
    results = iter(results)
    row, logit = np.empty(0, np.int64), np.empty(0, np.float32)
    for shard in shards:
        end_row = shard.first_row + shard.num_records
        batches = [(row, logit)]
        while not len(row) or row[-1] < end_row - 1:
            found = next(results, None)
            if found is None:
                break
            row, logit = found["row"], found["logit"]
            batches.append((row, logit))
        row, logit = map(np.concatenate, zip(*batches, strict=True))
        inside = (row >= shard.first_row) & (row < end_row)
        if not np.array_equal(row[inside], np.arange(shard.first_row, end_row)):
            raise RuntimeError(
                f"{shard.path}: found results of {inside.sum():,} patches,"
                f" expected {shard.num_records:,}, each once and in order."
                " Please report it."
            )
        yield shard, logit[inside]
        row, logit = row[row >= end_row], logit[row >= end_row]


@contextlib.contextmanager
def open_folder(
    folder: str, job: Mapping[str, str], *, restart: bool = False
) -> Iterator[Parts]:
    """Opens a folder of parts, or makes it, for this process alone.

    It is removed at the end, and after an error if it has no part yet.

    Args:
        folder: Where.
        job: What the parts belong to.
        restart: Drops the parts that are there.

    Raises:
        FileExistsError: the folder holds other things.
        RuntimeError: another process works there.
        ValueError: the parts belong to another job.
    """
    with _hold(folder):
        if restart:
            _remove_files(folder)
        _check_job(folder, job)
        try:
            yield Parts(folder)
        except BaseException:
            if not _list_parts(folder):
                _remove(folder)
            raise
        _remove(folder)


@contextlib.contextmanager
def share_folder(folder: str, job: Mapping[str, str]) -> Iterator[Parts]:
    """Opens a folder of parts, or makes it, beside others that do the same.

    It stays, for whoever joins the parts. One without parts where nobody is at
    work takes any job.

    Args:
        folder: Where.
        job: What the parts belong to.

    Raises:
        FileExistsError, RuntimeError, ValueError: see `open_folder`.
    """
    _drop_idle_job(folder, job)
    with _hold(folder, is_shared=True):
        _note_job_once(folder, job)
        _refuse_other_job(folder, job)
        yield Parts(folder)


@contextlib.contextmanager
def _hold(folder: str, *, is_shared: bool = False) -> Iterator[None]:
    _refuse_foreign(folder)
    with locks.hold(
        os.path.join(folder, _LOCK),
        "is at work on this output",
        "Wait for it, or choose another --output_csv.",
        is_shared=is_shared,
        wait_seconds=_DROP_SECONDS if is_shared else 0,
    ):
        yield


def _drop_idle_job(folder: str, job: Mapping[str, str]) -> None:
    """Drops another job than this one, of which nothing was ever predicted."""

    def is_droppable() -> bool:
        return not _list_parts(folder) and bool(_list_differing(folder, job))

    if not os.path.exists(os.path.join(folder, _JOB)) or not is_droppable():
        return
    with contextlib.suppress(RuntimeError):  # Somebody is at work on it.
        with _hold(folder):
            if is_droppable():  # Still: another process may have been quicker.
                files.remove(os.path.join(folder, _JOB))


def _note_job_once(folder: str, job: Mapping[str, str]) -> None:
    """Notes the job of a folder, if none is noted: the first of several does.

    Others wait until its file is whole. Nothing but making a file that must be
    new is asked of the file system: many have no links.
    """
    path = os.path.join(folder, _JOB)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(_job_text(job))
    except FileExistsError:
        deadline = time.monotonic() + _DROP_SECONDS
        while not _read_job(folder) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _check_job(folder: str, job: Mapping[str, str]) -> None:
    """Notes the job of a folder without parts; refuses one of another job."""
    path = os.path.join(folder, _JOB)
    if not _list_parts(folder):
        files.write_text(path, _job_text(job))
        return
    _refuse_other_job(folder, job)


def _job_text(job: Mapping[str, str]) -> str:
    return json.dumps(job, indent=1) + "\n"


def _refuse_other_job(folder: str, job: Mapping[str, str]) -> None:
    differing = _list_differing(folder, job)
    if differing:
        raise ValueError(
            f"{folder}: found parts of another prediction, which differs in"
            f" {', '.join(differing)}. Give the same flags to go on with it, or"
            " another --output_csv; or remove this folder to begin anew."
        )


def _list_differing(folder: str, job: Mapping[str, str]) -> list[str]:
    """Returns in what a job differs from that of a folder; if none, in all."""
    found = _read_job(folder)
    return [name for name in job if found.get(name) != job[name]]


def _read_job(folder: str) -> dict[str, object]:
    """Returns the job of a folder; nothing if none is noted, or not whole."""
    try:
        with open(os.path.join(folder, _JOB), encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}


def _refuse_foreign(folder: str) -> None:
    if files.holds_others(folder, _OWN.fullmatch):
        raise FileExistsError(
            f"{folder}: found something other than parts of a prediction,"
            " expected a folder to make, or theirs. Choose another"
            " --output_csv."
        )


def _list_parts(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(_ENDING)]


def _remove_files(folder: str) -> None:
    """Removes all but the lock: others may wait for it."""
    for name in filter(_OWN.fullmatch, os.listdir(folder)):
        if name != _LOCK:
            os.remove(os.path.join(folder, name))


def _remove(folder: str) -> None:
    _remove_files(folder)
    os.remove(os.path.join(folder, _LOCK))
    with contextlib.suppress(OSError):  # Something was put there meanwhile.
        os.rmdir(folder)
