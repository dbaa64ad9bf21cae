"""A job on Apache Beam: its options, and the run of its tasks to their end."""

import concurrent.futures
import contextlib
import glob
import io
import logging
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pcam_tfdata.beam import task_folder

_POLL_SECONDS = 0.2
_STDERR = 2
_TRACEBACK_VARIABLE = "PCAM_TRACEBACK"


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


def run(options: Any, job: str, num_tasks: int) -> Exception | None:
    """Runs a job to its end; returns what Beam says if it failed."""
    try:
        with _quiet():
            return _run_pipeline(options, job, num_tasks)
    except Exception as error:
        return error


def _run_pipeline(options: Any, job: str, num_tasks: int) -> Exception | None:
    """Does what `run` does; some of Beam's own errors are raised."""
    import apache_beam as beam

    pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | beam.Create([num_tasks])
        | beam.FlatMap(count_tasks)
        | beam.Reshuffle()  # Else one worker had them all.
        | beam.Map(task_folder.run, job)
    )
    standard = options.view_as(beam.options.pipeline_options.StandardOptions)
    name = standard.runner or standard.DEFAULT_RUNNER
    run = _run_here if name in standard.LOCAL_RUNNERS else _run_on_engine
    state = run(pipeline)
    is_done = state == beam.runners.runner.PipelineState.DONE
    return None if is_done else RuntimeError(f"the job ended as {state}")


def _run_here(pipeline: Any) -> str:
    """Runs a pipeline on this machine and returns its state at the end."""
    others = _list_descendants(os.getpid())
    try:
        return _wait_for(lambda: pipeline.run().wait_until_finish())
    except Exception:
        raise  # Beam has ended its workers.
    except BaseException:
        _start_no_more()
        _kill_workers(others)
        raise


def _start_no_more() -> None:
    """Holds, to the end of this process, the lock that Beam starts workers under."""
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    worker_handlers.SUBPROCESS_LOCK.acquire()


def _kill_workers(spared: set[int]) -> None:
    """Kills the processes below this one, but for some.

    Those that are about to start would wait for this process for two minutes
    before they saw that it is gone.
    """
    seen = set(spared)
    while found := _list_descendants(os.getpid()) - seen:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        seen |= found
        time.sleep(_POLL_SECONDS)


def _list_descendants(pid: int) -> set[int]:
    """Returns the processes below one, as far as Linux tells."""
    found = set()
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path) as file:
            found |= set(map(int, file.read().split()))
    return found.union(*map(_list_descendants, found))


def _run_on_engine(pipeline: Any) -> str:
    """Runs a pipeline and returns its state at the end; cancels it on a signal."""
    result = pipeline.run()  # It may set signal handlers: the main thread only.
    try:
        return _wait_for(result.wait_until_finish)
    except BaseException:
        with contextlib.suppress(Exception):
            result.cancel()
        raise


def _wait_for(function: Callable[[], str]) -> str:
    """Returns what a function does, called in a thread.

    So a signal is raised here and not within Beam, which would then tidy up, and
    wait for workers that the signal has ended.
    """
    done: concurrent.futures.Future[str] = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    # A thread of gRPC may take the signal, which does not wake this one.
    while not concurrent.futures.wait([done], timeout=_POLL_SECONDS).done:
        pass
    return done.result()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what Beam and its local workers write to stderr.

    They write tracebacks there, of errors that are told in one line later. After
    an interruption its threads stay quiet: they run until the process ends.
    """
    if os.environ.get(_TRACEBACK_VARIABLE):
        yield
        return
    logger = logging.getLogger("apache_beam")
    before = logger.level, threading.excepthook
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), _STDERR)
        logger.setLevel(logging.CRITICAL + 1)
        threading.excepthook = lambda _: None
        yield
    except Exception:
        _unmute(*before)
        raise
    else:
        _unmute(*before)
    finally:
        sys.stderr.flush()
        os.dup2(kept, _STDERR)
        os.close(kept)


def _unmute(level: int, hook: Callable[[Any], None]) -> None:
    logging.getLogger("apache_beam").setLevel(level)
    threading.excepthook = hook
