"""Tasks for workers on any machine: a folder that they share, and nothing else.

    JOB/task-K       versions that it needs, and what to call with what: pickled
                     twice, as a worker without these packages cannot unpickle it
    JOB/result-K     what came of task K, pickled
    JOB/error-K      what it failed of, the last time
    JOB/failure      why the job as a whole failed, pickled

A task may be run again after an error, and twice at the same time. So it must
do the same each time, and files must appear whole. A worker unpickles what is
in the folder: who may write there may run programs on the workers.
"""

import concurrent.futures
import contextlib
import os
import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pcam_tfdata.system import faults, files, versions

FAILURE = "failure"
_LATE_SECONDS = 60  # A disk of several machines may show a file late.


def write_tasks(
    job: str,
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    expected: Mapping[str, str],
) -> int:
    """Writes what workers read, see `beam_job.map_tasks`; returns how many.

    Memory holds one task at a time.
    """
    number = -1
    for number, task in enumerate(tasks):
        data = pickle.dumps((dict(expected), pickle.dumps((function, task))))
        files.write_bytes(os.path.join(job, f"task-{number}"), data)
    return number + 1


def run_task(number: int, job: str) -> None:
    """Does a task of a job, in a worker, and leaves its result in the folder.

    Raises:
        Exception: whatever the task raised; it may be tried again.
        RuntimeError: the worker has other versions than the driver.
    """
    result_path = os.path.join(job, f"result-{number}")
    if files.is_file(result_path):
        return
    try:
        expected, call = _read(os.path.join(job, f"task-{number}"))
        versions.check(expected)
        function, task = pickle.loads(call)
        result = function(task)
    except Exception as error:
        write_error(job, f"error-{number}", error)
        raise
    files.write_bytes(result_path, pickle.dumps(result))


def write_error(job: str, name: str, error: Exception) -> None:
    """Notes an error in a job's folder, unless that cannot be written."""
    with contextlib.suppress(OSError):
        data = pickle.dumps(faults.make_portable(error))
        files.write_bytes(os.path.join(job, name), data)


def collect(job: str, num_tasks: int) -> list[Any]:
    """Returns the results of all tasks of a job that has ended, in order.

    Raises:
        Exception: that of the first task without a result; a RuntimeError
            where its text is not for the user.
        RuntimeError: a task has neither result nor error, or another process
            has stopped the job.
    """
    try:
        _check_done(job, num_tasks)
        paths = [os.path.join(job, f"result-{n}") for n in range(num_tasks)]
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            return list(pool.map(_read, paths))
    except Exception as error:
        if files.is_file(os.path.join(job, "task-0")):
            raise
        raise RuntimeError(
            f"{job}: found no tasks, expected those of this command: another"
            " one with the same output took them away. Run one at a time."
        ) from error


def _check_done(job: str, num_tasks: int) -> None:
    """Raises the error of a task without a result, or one that says so."""
    deadline = time.monotonic() + _LATE_SECONDS
    while True:
        names = set(files.list_names(job))
        missing = [n for n in range(num_tasks) if f"result-{n}" not in names]
        if not missing:
            return
        if FAILURE in names or time.monotonic() > deadline:
            break
        time.sleep(1)
    for number in missing:
        if f"error-{number}" in names:
            raise _read(os.path.join(job, f"error-{number}"))
    lines = ["Beam says no more"]
    if FAILURE in names:  # Its last line says most.
        error = _read(os.path.join(job, FAILURE))
        lines = str(error).strip().splitlines() or [type(error).__name__]
    raise RuntimeError(
        f"found {len(missing):,} of {num_tasks:,} tasks undone ({lines[-1]}),"
        " expected none. Check --beam_options, and that workers on other"
        " machines see the output too. PCAM_TRACEBACK=1 shows more."
    )


def _read(path: str) -> Any:
    with files.open_file(path, "rb") as file:
        return pickle.load(file)
