"""Tasks on Apache Beam: on Flink, Spark, Dataflow, or its own local runners.

`BeamPool.map` does what `workers.Workers.map` does, for workers on any machine.
They share a folder, on a disk that all of them see or in a bucket, and nothing
else: the job itself holds the number of tasks, so that it stays small.

    FOLDER/JOB/function     what to call, pickled, and the versions it is of
    FOLDER/JOB/tasks        its arguments, pickled, one after the other
    FOLDER/JOB/starts       where each begins in there, and the end: int64
    FOLDER/JOB/result-K     what came of task K, pickled
    FOLDER/JOB/error-K      what it failed of, the last time

Beam may run a task again after an error, and twice at the same time. So a task
must do the same each time, and files must appear whole. A worker unpickles
what is in the folder: who may write there may run programs on the workers.
"""

import concurrent.futures
import contextlib
import io
import logging
import os
import pickle
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from pcam_tfdata import files, versions

_FUNCTION, _TASKS, _STARTS = "function", "tasks", "starts"
_START = np.dtype("<i8")
_NUM_READERS = 16
_STDERR = 2
_TRACEBACK_VARIABLE = "PCAM_TRACEBACK"

_logger = logging.getLogger(__name__)


class BeamPool:
    """A pool of whatever workers a Beam runner has. A context manager.

    Args:
        folder: Of all jobs, seen by the workers too. Jobs that an earlier
            process left there are stopped: their tasks are removed.
        beam_options: Beam's flags, as on a command line.

    Raises:
        RuntimeError, ValueError: see `parse_options`.
    """

    def __init__(self, folder: str, beam_options: str) -> None:
        self._folder = folder
        self._options = parse_options(beam_options)

    def __enter__(self) -> "BeamPool":
        files.remove_folder(self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        files.remove_folder(self._folder)

    def map(
        self,
        function: Callable[[Any], Any],
        tasks: Iterable[Any],
        *,
        num_patches: int,
        description: str,
    ) -> list[Any]:
        """Returns `function(task)` for each task, in order.

        Args:
            function: Of a module, and so are its results: they are pickled.
            tasks: Its arguments; taken one by one.
            num_patches: In all of them, for the log.
            description: Of the job, likewise.

        Raises:
            RuntimeError: Beam failed, or the workers are not fit.
            Exception: whatever `function` raised, of the first task that failed
                as often as the runner tries.
        """
        job = os.path.join(
            self._folder, f"{description}-{secrets.token_hex(8)}"
        )
        files.make_folder(job)
        num_tasks = _write_tasks(job, function, tasks)
        _logger.info(
            "%s: %s patches in %s tasks on Beam.",
            description, f"{num_patches:,}", f"{num_tasks:,}",
        )  # fmt: skip
        try:
            failure = _run(self._options, job, num_tasks) if num_tasks else None
            return _collect(job, num_tasks, failure)
        finally:
            # What still runs of it finds no more task.
            files.remove_folder(job)


def parse_options(text: str) -> Any:
    """Returns Beam's `PipelineOptions` of a text of flags.

    Raises:
        RuntimeError: apache_beam is not installed.
        ValueError: Beam refuses the flags.
    """
    try:
        with _quiet():
            from apache_beam.options import pipeline_options
            from apache_beam.runners import runner
    except ImportError as error:
        raise RuntimeError(
            f"--runner=beam: found no apache_beam ({error}), expected it to be"
            " installed. pip install 'pcam_tfdata[beam]', see docs/beam.md."
        ) from error
    told = io.StringIO()
    try:
        flags = shlex.split(text)
        if flags and not flags[0].startswith("--"):
            raise ValueError(f"found {flags[0]!r}, expected --flag=value")
        # argparse prints and exits.
        with (
            contextlib.redirect_stderr(told),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            options = pipeline_options.PipelineOptions(flags)
            standard = options.view_as(pipeline_options.StandardOptions)
            options.get_all_options()
            runner.create_runner(standard.runner or standard.DEFAULT_RUNNER)
    except (SystemExit, ValueError, ImportError, AttributeError) as error:
        reason = told.getvalue().strip().splitlines()[-1:] or [str(error)]
        raise ValueError(
            f"--beam_options: found {text!r}, which Beam refuses"
            f" ({' '.join(reason[0].split())}). See docs/beam.md."
        ) from error
    # Else DirectRunner fetches another one, Prism, from the network where it
    # can, which knows nothing of direct_running_mode. No trigger is used here.
    options.view_as(pipeline_options.TypeOptions).allow_unsafe_triggers = True
    return options


def count_tasks(num_tasks: int) -> Iterator[int]:
    """Yields the number of each task."""
    yield from range(num_tasks)


def run_task(number: int, job: str) -> None:
    """Does a task of a job, in a worker, and leaves its result in the folder.

    Raises:
        Exception: whatever the task raised; the runner may try again.
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


def _write_tasks(
    job: str, function: Callable[[Any], Any], tasks: Iterable[Any]
) -> int:
    """Writes what workers read; returns the number of tasks."""
    starts = [0]
    with files.open_whole(os.path.join(job, _TASKS), "wb") as file:
        for task in tasks:
            starts.append(starts[-1] + file.write(pickle.dumps(task)))
    files.write_bytes(
        os.path.join(job, _STARTS), np.array(starts, _START).tobytes()
    )
    files.write_bytes(
        os.path.join(job, _FUNCTION), pickle.dumps((function, versions.find()))
    )
    return len(starts) - 1


def _read_task(job: str, number: int) -> tuple[Callable[[Any], Any], Any]:
    with files.open_file(os.path.join(job, _FUNCTION), "rb") as file:
        function, expected = pickle.load(file)
    found = versions.find()
    if found != expected:
        raise RuntimeError(
            f"worker on {socket.gethostname()}: found {found}, expected"
            f" {expected}, as where the job was started. Install the same"
            " versions there."
        )
    span = files.read_bytes(
        os.path.join(job, _STARTS),
        number * _START.itemsize,
        2 * _START.itemsize,
    )
    start, end = np.frombuffer(span, _START).tolist()
    data = files.read_bytes(os.path.join(job, _TASKS), start, end - start)
    return function, pickle.loads(data)


def _run(options: Any, job: str, num_tasks: int) -> Exception | None:
    """Runs a job to its end; returns what Beam says if it failed."""
    import apache_beam as beam

    pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | beam.Create([num_tasks])
        | beam.FlatMap(count_tasks)
        | beam.Reshuffle()  # Else one worker had them all.
        | beam.Map(run_task, job)
    )
    try:
        with _quiet():
            result = pipeline.run()
            try:
                state = result.wait_until_finish()
            except BaseException:
                with contextlib.suppress(Exception):
                    result.cancel()
                raise
    except Exception as error:
        return error
    is_done = state == beam.runners.runner.PipelineState.DONE
    return None if is_done else RuntimeError(f"the job ended as {state}")


def _collect(job: str, num_tasks: int, failure: Exception | None) -> list[Any]:
    """Returns the results of all tasks, or raises why there is one missing."""
    names = set(files.list_names(job))
    missing = [n for n in range(num_tasks) if f"result-{n}" not in names]
    for number in missing:
        if f"error-{number}" in names:
            raise _read(os.path.join(job, f"error-{number}"))
    if missing:
        told = str(failure).strip().splitlines()[-1:] if failure else []
        raise RuntimeError(
            f"Beam left {len(missing):,} of {num_tasks:,} tasks undone"
            f" ({' '.join(told) or 'it says no more'}), expected none. Run again"
            f" with {_TRACEBACK_VARIABLE}=1 to see its messages; workers on other"
            " machines need an --output_dir that they see too."
        ) from failure
    paths = [os.path.join(job, f"result-{n}") for n in range(num_tasks)]
    with concurrent.futures.ThreadPoolExecutor(_NUM_READERS) as pool:
        return list(pool.map(_read, paths))


def _read(path: str) -> Any:
    with files.open_file(path, "rb") as file:
        return pickle.load(file)


def _pickle_error(error: Exception) -> bytes:
    """Returns an error, or its text where it cannot travel."""
    try:
        data = pickle.dumps(error)
        pickle.loads(data)
    except Exception:  # Anything, of classes that are not ours.
        text = f"{type(error).__name__}: {error}"
        return pickle.dumps(RuntimeError(text))
    return data


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what Beam and its local workers write to stderr.

    They write tracebacks there, of errors that are told in one line later.
    """
    if os.environ.get(_TRACEBACK_VARIABLE):
        yield
        return
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), _STDERR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, _STDERR)
        os.close(kept)
