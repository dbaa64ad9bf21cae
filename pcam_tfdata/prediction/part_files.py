"""Logits of shards as files, a part each, which a killed job leaves behind.

They lie in a folder beside the output:

    lock            locked by the processes that predict
    SHARD.logits    a line of JSON, which says what the part belongs to; then the
                    logits of the shard's patches: float32
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from pcam_tfdata.records import records_folder
from pcam_tfdata.system import files, locks

_LOCK = "lock"
_ENDING = ".logits"
_WAIT_SECONDS = 2  # Far more than a merge takes to see that parts are missing.
_LOGIT = np.dtype("<f4")
_RANGE = re.compile(r"(\d+):(\d+)")
_MAX_RANGES = 8  # That an error names.

Shards = Sequence[records_folder.ShardFile]


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts in a folder, which is there and locked: see `open_folder`.

    Attributes:
        folder: Where they are.
        job: What they belong to: hashes of the model and the records, the split.
    """

    folder: str
    job: Mapping[str, str]

    def list_missing(self, shards: Shards) -> list[slice]:
        """Returns the runs of shards that have no sound part.

        Raises:
            ValueError: the part of one is of another job.
        """
        has_part = itertools.groupby(
            enumerate(shards), lambda item: self._has(item[1])
        )
        runs = [[i for i, _ in items] for has, items in has_part if not has]
        return [slice(run[0], run[-1] + 1) for run in runs]

    def require(self, shards: Shards) -> None:
        """Refuses shards without a part.

        Raises:
            ValueError: at least one has none; the text names their ranges.
        """
        missing = self.list_missing(shards)
        if missing:
            ranges = [f"{run.start}:{run.stop}" for run in missing]
            num_missing = sum(run.stop - run.start for run in missing)
            num_more = len(ranges) - _MAX_RANGES
            raise ValueError(
                f"{self.folder}: found no part of {num_missing:,} of"
                f" {len(shards):,} shards, expected all. Predict with"
                f" --shard_range: {', '.join(ranges[:_MAX_RANGES])}"
                f"{f' and {num_more:,} more' if num_more > 0 else ''}."
            )

    def read(self, shard: records_folder.ShardFile) -> np.ndarray:
        """Returns the logits of a shard, whose part is there and sound."""
        with open(self._path(shard), "rb") as file:
            file.readline()
            return np.frombuffer(file.read(), _LOGIT)

    def write(self, shard: records_folder.ShardFile, logit: np.ndarray) -> None:
        """Writes the part of a shard, whole or not at all."""
        with files.open_whole(
            self._path(shard), "wb", sync=True, is_shared=True
        ) as file:
            file.write(self._header())
            file.write(logit.astype(_LOGIT).tobytes())

    def is_own(self, name: str) -> bool:
        """Returns whether a part is of this job; False where it does not tell.

        Raises:
            ValueError: it is of another job.
        """
        try:
            with open(os.path.join(self.folder, name), "rb") as file:
                job = dict(json.loads(file.readline()))
        except (OSError, ValueError, TypeError):
            return False
        differing = [key for key in self.job if job.get(key) != self.job[key]]
        if job and differing:
            raise ValueError(
                f"{self.folder}: found parts of another prediction, which"
                f" differs in {', '.join(differing)}. Give the same flags to go"
                " on with it, or another --output_csv; or remove this folder to"
                " begin anew."
            )
        return bool(job)

    def _has(self, shard: records_folder.ShardFile) -> bool:
        path = self._path(shard)
        size = len(self._header()) + shard.num_records * _LOGIT.itemsize
        return (
            self.is_own(os.path.basename(path))
            and os.path.getsize(path) == size
        )

    def _header(self) -> bytes:
        return f"{json.dumps(dict(self.job))}\n".encode()

    def _path(self, shard: records_folder.ShardFile) -> str:
        name = os.path.basename(shard.path)
        return os.path.join(self.folder, f"{name}{_ENDING}")


@contextlib.contextmanager
def open_folder(
    folder: str,
    job: Mapping[str, str],
    *,
    restart: bool = False,
    is_shared: bool = False,
) -> Iterator[Parts]:
    """Opens a folder of parts, or makes it.

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
        ValueError: the parts belong to another job.
    """
    files.refuse_others(
        folder, _is_of_parts, "parts of a prediction", "--output_csv"
    )
    with locks.hold(
        os.path.join(folder, _LOCK),
        "is at work on this output",
        "Wait for it, or choose another --output_csv.",
        is_shared=is_shared,
        wait_seconds=_WAIT_SECONDS if is_shared else 0,
    ):
        if restart:
            _remove_parts(folder)
        parts, is_done = Parts(folder, job), False
        try:
            any(map(parts.is_own, _list_parts(folder)[:1]))
            yield parts
            is_done = True
        finally:
            if not is_shared and (is_done or not _list_parts(folder)):
                _remove(folder)


def cut(
    results: Iterable[dict[str, np.ndarray]],
    shards: Iterable[records_folder.ShardFile],
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
        batches = [(row, logit)]
        while not len(row) or row[-1] < shard.end_row - 1:
            batch = next(results, None)
            if batch is None:
                break
            row, logit = batch["row"], batch["logit"]
            batches.append((row, logit))
        row, logit = map(np.concatenate, zip(*batches, strict=True))
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
    match = _RANGE.fullmatch(text)
    if match:
        start, stop = map(int, match.groups())
        if start < stop <= num_shards:
            return slice(start, stop)
    raise ValueError(
        f"--shard_range: found {text!r}, expected a:b for shards a to b - 1 of"
        f" the split, within 0:{num_shards}."
    )


def _is_of_parts(name: str) -> bool:
    """Returns whether a name is the lock's or a part's, also half written."""
    return name == _LOCK or _ENDING in name


def _list_parts(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.endswith(_ENDING)]


def _remove_parts(folder: str) -> None:
    """Removes all but the lock: other processes may wait for it."""
    for name in os.listdir(folder):
        if _ENDING in name:
            os.remove(os.path.join(folder, name))


def _remove(folder: str) -> None:
    _remove_parts(folder)
    os.remove(os.path.join(folder, _LOCK))
    with contextlib.suppress(OSError):  # Something was put there meanwhile.
        os.rmdir(folder)
