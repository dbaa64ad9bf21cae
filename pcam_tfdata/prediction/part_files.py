"""Logits of shards as files, a part each, which a killed job leaves behind.

They lie in a folder beside the output:

    lock                 locked by the processes that predict
    SHARD.JOB.logits     the logits of the shard's patches: float32; JOB is a
                         hash of what they belong to
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from pcam_tfdata.records import records_folder
from pcam_tfdata.system import files, locks

_ENDING = ".logits"
_WAIT_SECONDS = 2  # Far more than a merge takes to see that parts are missing.
_LOGIT = np.dtype("<f4")
_RANGE = re.compile(r"(\d+):(\d+)")
_MAX_RANGES = 8  # That an error names.
_HASH_LETTERS = 16
# A part's name, also half written.
_PART = re.compile(rf".+\.[0-9a-f]{{{_HASH_LETTERS}}}{re.escape(_ENDING)}.*")

Shards = Sequence[records_folder.ShardFile]


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of a job in a folder, which is there: see `open_folder`.

    Attributes:
        folder: Where they are.
        ending: How the names of the job's parts end.
    """

    folder: str
    ending: str

    def list_missing(self, shards: Shards) -> list[slice]:
        """Returns the runs of shards that have no whole part."""
        has_part = [
            files.size(self._path(shard)) == shard.num_records * _LOGIT.itemsize
            for shard in shards
        ]
        edges = np.flatnonzero(np.diff(has_part, prepend=True, append=True))
        return list(map(slice, edges[::2].tolist(), edges[1::2].tolist()))

    def require(self, shards: Shards) -> None:
        """Refuses shards without a part.

        Raises:
            ValueError: at least one has none; the text names their ranges.
        """
        if missing := self.list_missing(shards):
            ranges = [f"{run.start}:{run.stop}" for run in missing]
            num_missing = sum(run.stop - run.start for run in missing)
            raise ValueError(
                f"{self.folder}: found no part of {num_missing:,} of"
                f" {len(shards):,} shards, expected all. Predict with"
                f" --shard_range: {', '.join(ranges[:_MAX_RANGES])}"
                f"{' and more' * (len(ranges) > _MAX_RANGES)}."
            )

    def join(self, shards: Shards) -> dict[str, np.ndarray]:
        """Returns `logit` of shards, whose parts are there and whole."""
        parts = [np.fromfile(self._path(shard), _LOGIT) for shard in shards]
        return {"logit": np.concatenate(parts)}

    def write(self, shard: records_folder.ShardFile, logit: np.ndarray) -> None:
        """Writes the part of a shard, whole or not at all."""
        with files.open_whole(
            self._path(shard), "wb", sync=True, is_shared=True
        ) as file:
            file.write(logit.astype(_LOGIT).tobytes())

    def refuse_other_jobs(self) -> None:
        """Refuses a folder with parts of another job.

        Raises:
            ValueError: it has one.
        """
        names = _list_parts(self.folder)
        if not all(name.endswith(self.ending) for name in names):
            raise ValueError(
                f"{self.folder}: found parts of another prediction, by another"
                " model, of other views, records or another split. Give the same"
                " flags to go on with it, or another --output_csv; or remove"
                " this folder to begin anew."
            )

    def _path(self, shard: records_folder.ShardFile) -> str:
        name = os.path.basename(shard.path)
        return os.path.join(self.folder, f"{name}{self.ending}")


@contextlib.contextmanager
def open_folder(
    folder: str,
    job: Mapping[str, str],
    *,
    restart: bool = False,
    is_shared: bool = False,
) -> Iterator[Parts]:
    """Opens a folder of parts, or makes it, and locks it.

    It is removed at the end, and after an error if it has no part yet; one that
    processes share stays, for whoever merges the parts.

    Args:
        folder: Where.
        job: What the parts belong to.
        restart: Drops the parts that are there.
        is_shared: Lets other processes work there that share it too.

    Raises:
        FileExistsError: the folder holds other things.
        RuntimeError: another process works there.
        ValueError: it holds parts of another job.
    """
    files.refuse_others(
        folder,
        lambda name: name == locks.LOCK or _PART.fullmatch(name),
        "parts of a prediction",
        "--output_csv",
    )
    digest = hashlib.sha256(json.dumps(job).encode()).hexdigest()
    parts = Parts(folder, f".{digest[:_HASH_LETTERS]}{_ENDING}")
    lock = os.path.join(folder, locks.LOCK)
    with locks.hold(
        lock,
        "is at work on this output",
        "Wait for it, or choose another --output_csv.",
        is_shared=is_shared,
        wait_seconds=_WAIT_SECONDS if is_shared else 0,
    ):
        if restart:
            _remove_parts(folder)
        is_done = False
        try:
            parts.refuse_other_jobs()
            yield parts
            is_done = True
        finally:
            if not is_shared and (is_done or not _list_parts(folder)):
                _remove_parts(folder)
                os.remove(lock)
                # Something may have been put there meanwhile.
                with contextlib.suppress(OSError):
                    os.rmdir(folder)


def cut(
    results: Iterable[dict[str, np.ndarray]], shards: Shards
) -> Iterator[tuple[records_folder.ShardFile, np.ndarray]]:
    """Yields shards with their logits, each as soon as it is complete.

    Args:
        results: `row` and `logit` of batches, by row; other patches are passed
            over.
        shards: By row.

    Raises:
        RuntimeError: a patch of a shard has no result, or two.
    """
    results = iter(results)
    row, logit = np.empty(0, np.int64), np.empty(0, np.float32)
    for shard in shards:
        while not len(row) or row[-1] < shard.end_row - 1:
            batch = next(results, None)
            if batch is None:
                break
            row = np.append(row, batch["row"])
            logit = np.append(logit, batch["logit"])
        inside = (row >= shard.first_row) & (row < shard.end_row)
        if not np.array_equal(
            row[inside], np.arange(shard.first_row, shard.end_row)
        ):
            raise RuntimeError(
                f"{shard.path}: found results of {inside.sum():,} patches,"
                f" expected {shard.num_records:,}, each once and in order."
                " Please report it."
            )
        yield shard, logit[inside]
        row, logit = row[row >= shard.end_row], logit[row >= shard.end_row]


def parse_range(text: str, num_shards: int) -> slice:
    """Returns the shards that a range `a:b` means: a to b - 1.

    Raises:
        ValueError: it is none, or not one of `num_shards` shards.
    """
    if match := _RANGE.fullmatch(text):
        start, stop = map(int, match.groups())
        if start < stop <= num_shards:
            return slice(start, stop)
    raise ValueError(
        f"--shard_range: found {text!r}, expected a:b for shards a to b - 1 of"
        f" the split, within 0:{num_shards}."
    )


def _list_parts(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(_ENDING)]


def _remove_parts(folder: str) -> None:
    """Removes all but the lock: other processes may wait for it."""
    for name in os.listdir(folder):
        if _PART.fullmatch(name):
            os.remove(os.path.join(folder, name))
