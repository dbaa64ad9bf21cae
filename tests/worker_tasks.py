"""Tasks for the tests that workers import without the rest of the tests."""

import os
import pathlib
import signal
import time
from unittest import mock

from pcam_tfdata.conversion import journal, write_shard
from pcam_tfdata.images import tiff
from pcam_tfdata.system import workers

FAILURES = "PCAM_TEST_FAILURES"  # Variable of a file with a line for each.
_write_shard = write_shard.write_shard  # Tests replace it where they are.


def find_process(number: int) -> int:
    """Returns the process that it runs in."""
    time.sleep(0.2)  # Time for the others to take the next one.
    return os.getpid()


def list_blocked(number: int) -> tuple[int, list[int]]:
    """Returns the process that it runs in, and the signals it does not hear."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return find_process(number), sorted(map(int, blocked))


def double_and_count(number: int) -> int:
    """Returns twice the number; it stands for one patch."""
    workers.count_done(1)
    return 2 * number


def interrupt_and_count(number: int) -> int:
    """Has a signal come, and counts then; it stands for one patch."""
    signal.raise_signal(signal.SIGINT)
    return double_and_count(number)


def write_shard_at_last(task: write_shard.ShardTask) -> journal.ShardResult:
    """Writes a shard; fails within the first, and after one of fold1."""
    path = pathlib.Path(os.environ[FAILURES])
    num_failures = len(path.read_text().splitlines()) if path.exists() else 0
    with (
        mock.patch.object(tiff, "read", _fail_late(tiff.read, 5))
        if num_failures == 0
        else mock.patch.object(journal, "write", _fail_late(None, 0))
        if num_failures == 1 and "fold1" in task.path
        else mock.patch.dict(os.environ)
    ):
        return _write_shard(task)


def _fail_late(function, num_calls: int):
    """Returns a function that does so many calls, and notes that it then fails."""
    rest = iter(range(num_calls))

    def call(*arguments):
        if next(rest, None) is not None:
            return function(*arguments)
        with open(os.environ[FAILURES], "a") as file:
            file.write(f"{arguments[0]}\n")
        raise OSError(5, "Input/output error", arguments[0])

    return call
