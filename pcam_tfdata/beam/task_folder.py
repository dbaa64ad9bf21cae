"""Tasks for workers on any machine: a folder that they share, and nothing else.

    JOB/function     versions that it needs, and what to call: pickled twice, as
                     a worker without these packages cannot unpickle it
    JOB/tasks        its arguments, pickled, one after the other
    JOB/starts       where each begins in there, and the end: int64
    JOB/result-K     what came of task K, pickled
    JOB/error-K      what it failed of, the last time

A task may be run again after an error, and twice at the same time. So it must do
the same each time, and files must appear whole. A worker unpickles what is in the
folder: who may write there may run programs on the workers.
"""

import concurrent.futures
import contextlib
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from pcam_tfdata.system import files, versions

_FUNCTION, _TASKS, _STARTS = "function", "tasks", "starts"
_START = np.dtype("<i8")
_NUM_READERS = 16
_MAX_TEXT = 500
# Their messages are written for the user, see `cli.main`.
_TOLD = (ValueError, OSError, RuntimeError, ArithmeticError)
_LATE_SECONDS = 60  # A disk of several machines may show a file late.


def write(
    job: str,
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    expected: Mapping[str, str],
) -> int:
    """Writes what workers read; returns the number of tasks.

    Args:
        job: A folder that is there.
        function: Of a module that workers can import.
        tasks: Its arguments; memory holds one at a time.
        expected: The versions that workers must have, by package.
    """
    starts = [0]
    with files.open_whole(os.path.join(job, _TASKS), "wb") as file:
        for task in tasks:
            starts.append(starts[-1] + file.write(pickle.dumps(task)))
    files.write_bytes(
        os.path.join(job, _STARTS), np.array(starts, _START).tobytes()
    )
    files.write_bytes(
        os.path.join(job, _FUNCTION),
        pickle.dumps((dict(expected), pickle.dumps(function))),
    )
    return len(starts) - 1


def run(number: int, job: str) -> None:
    """Does a task of a job, in a worker, and leaves its result in the folder.

    Raises:
        Exception: whatever the task raised; it may be tried again.
        RuntimeError: the worker has other versions than the driver.
    """
    result_path = os.path.join(job, f"result-{number}")
    if files.is_file(result_path):
        return
    try:
        function, task = _read_task(job, number)
        result = function(task)
    except Exception as error:
        with contextlib.suppress(OSError):
            path = os.path.join(job, f"error-{number}")
            files.write_bytes(path, _pickle_error(error))
        raise
    files.write_bytes(result_path, pickle.dumps(result))


def is_there(job: str) -> bool:
    """Returns whether a job has its tasks: nobody has stopped it."""
    return files.is_file(os.path.join(job, _TASKS))


def collect(job: str, num_tasks: int, failure: Exception | None) -> list[Any]:
    """Returns the results of all tasks, in order.

    Args:
        job: The folder.
        num_tasks: That `write` returned.
        failure: What went wrong with the job as a whole, if anything did.

    Raises:
        Exception: that of the first task without a result; a RuntimeError
            where its text is not for the user.
        RuntimeError: a task has neither result nor error, or another process
            has stopped the job.
    """
    try:
        return _collect(job, num_tasks, failure)
    except Exception as error:
        if is_there(job):
            raise
        raise RuntimeError(
            f"{job}: found no tasks, expected those of this command: another"
            " one with the same output took them away. Run one at a time."
        ) from error


def _collect(job: str, num_tasks: int, failure: Exception | None) -> list[Any]:
    """Returns what `collect` does, of a job that nobody stops."""
    names, missing = _list_missing(job, num_tasks)
    deadline = time.monotonic() + _LATE_SECONDS
    while missing and failure is None and time.monotonic() < deadline:
        time.sleep(1)
        names, missing = _list_missing(job, num_tasks)
    for number in missing:
        if f"error-{number}" in names:
            raise _read(os.path.join(job, f"error-{number}"))
    if missing:
        raise RuntimeError(
            f"found {len(missing):,} of {num_tasks:,} tasks undone"
            f" ({_describe(failure)}), expected none. Check --beam_options, and"
            " that workers on other machines see the output too. Run again with"
            " PCAM_TRACEBACK=1 to see more."
        ) from failure
    paths = [os.path.join(job, f"result-{n}") for n in range(num_tasks)]
    with concurrent.futures.ThreadPoolExecutor(_NUM_READERS) as pool:
        return list(pool.map(_read, paths))


def _describe(failure: Exception | None) -> str:
    """Returns what went wrong with a job in one line: Beam tells it last."""
    if failure is None:
        return "Beam says no more"
    lines = str(failure).strip().splitlines()
    return lines[-1] if lines else type(failure).__name__


def _list_missing(job: str, num_tasks: int) -> tuple[set[str], list[int]]:
    """Returns the files of a job, and which tasks have no result among them."""
    names = set(files.list_names(job))
    return names, [n for n in range(num_tasks) if f"result-{n}" not in names]


def _read_task(job: str, number: int) -> tuple[Callable[[Any], Any], Any]:
    with files.open_file(os.path.join(job, _FUNCTION), "rb") as file:
        expected, function = pickle.load(file)
    _check_versions(expected)
    span = files.read_bytes(
        os.path.join(job, _STARTS),
        number * _START.itemsize,
        2 * _START.itemsize,
    )
    start, end = np.frombuffer(span, _START).tolist()
    data = files.read_bytes(os.path.join(job, _TASKS), start, end - start)
    return pickle.loads(function), pickle.loads(data)


def _check_versions(expected: Mapping[str, str]) -> None:
    differing = versions.list_differing(expected)
    if not differing:
        return
    found = [
        f"{name} {here}" if here else f"no {name}"
        for name, here in differing.items()
    ]
    wanted = [f"{name} {expected[name]}" for name in differing]
    raise RuntimeError(
        f"worker on {socket.gethostname()}: found {', '.join(found)}, expected"
        f" {', '.join(wanted)}, as where the job was started. Install the same"
        " versions there."
    )


def _read(path: str) -> Any:
    with files.open_file(path, "rb") as file:
        return pickle.load(file)


def _pickle_error(error: Exception) -> bytes:
    """Returns an error; where it cannot travel or is not told, its text."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # Anything, of classes that are not ours.
        data = None
    if data and isinstance(error, _TOLD):
        return data
    text = " ".join(str(error).split())[:_MAX_TEXT]
    return pickle.dumps(
        RuntimeError(
            f"worker on {socket.gethostname()}:"
            f" {': '.join(filter(None, (type(error).__name__, text)))}"
        )
    )
