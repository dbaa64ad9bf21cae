"""Tasks on Apache Beam: on Flink, Spark, Dataflow, or its own local runners.

The driver writes tasks to a folder, see `task_folder`; a process of its own
leads the job and its group of local workers. However the driver ends, the job is
cancelled and that group is killed.
"""

import contextlib
import io
import logging
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pcam_tfdata.beam import task_folder
from pcam_tfdata.system import faults, files, locks

_PROGRAM = "from pcam_tfdata.beam import beam_job; beam_job.lead_job()"
_CANCEL_SECONDS = 10

_logger = logging.getLogger(__name__)


def parse_options(text: str) -> Any:
    """Returns Beam's `PipelineOptions` of a text of flags.

    Raises:
        RuntimeError: apache_beam is not installed.
        ValueError: Beam refuses the flags.
    """
    output = io.StringIO()
    logging.disable()  # Beam warns of what it could not import.
    try:
        with contextlib.redirect_stderr(output):  # argparse prints and exits.
            from apache_beam.options import pipeline_options
            from apache_beam.runners import runner

            flags = shlex.split(text)
            if flags and not flags[0].startswith("--"):
                raise ValueError(f"found {flags[0]!r}, expected --flag=value")
            options = pipeline_options.PipelineOptions(flags)
            standard = options.view_as(pipeline_options.StandardOptions)
            options.get_all_options()
            runner.create_runner(standard.runner or standard.DEFAULT_RUNNER)
    except (SystemExit, ValueError, ImportError, AttributeError) as error:
        if "pipeline_options" not in locals():
            raise RuntimeError(
                f"--runner=beam: found no apache_beam ({error}), expected it to"
                " be installed. pip install 'pcam_tfdata[beam]', see"
                " docs/beam.md."
            ) from error
        reason = output.getvalue().strip().splitlines()[-1:] or [str(error)]
        raise ValueError(
            f"--beam_options: found {text!r}, which Beam refuses"
            f" ({faults.one_line(reason[0])}). See docs/beam.md."
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    # Else DirectRunner fetches another one, Prism, from the network where it
    # can, which knows nothing of direct_running_mode. No trigger is used here.
    options.view_as(pipeline_options.TypeOptions).allow_unsafe_triggers = True
    return options


def map_tasks(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    num_patches: int,
    description: str,
    folder: str,
    beam_options: str,
    expected: Mapping[str, str],
) -> list[Any]:
    """Returns `function(task)` for each task, in order, from Beam's workers.

    Args:
        function: One that a module has; it and its results are pickled.
        tasks: Its arguments; taken one by one.
        num_patches: How many patches all of them have, for the log.
        description: What the job is called, in the log too.
        folder: Where jobs are, for the workers too. Those that an earlier
            process left are stopped: their tasks are removed. On a disk one
            process has it at a time; in a bucket the later stops the earlier.
        beam_options: Beam's flags, as on a command line.
        expected: The versions that workers must have, by package.

    Raises:
        FileExistsError: the folder holds other things.
        RuntimeError: Beam failed, or the workers are not fit, or another
            process has the folder.
        Exception: whatever `function` raised, of the first task that failed as
            often as the runner tries.
    """
    own = re.compile("[a-z]+-[0-9a-f]{16}")
    what = "has jobs on Beam for this output"
    with locks.own_folder(folder, own, "jobs of Beam", what):
        for name in filter(own.fullmatch, files.list_names(folder)):
            files.remove_folder(os.path.join(folder, name))
        job = os.path.join(folder, f"{description}-{secrets.token_hex(8)}")
        files.make_folder(job)
        try:
            num_tasks = task_folder.write_tasks(job, function, tasks, expected)
            if num_tasks:
                counts = f"{num_patches:,} patches in {num_tasks:,} tasks"
                _logger.info("%s: %s on Beam.", description, counts)
                _run_job(beam_options, job, num_tasks)
            return task_folder.collect(job, num_tasks)
        finally:
            # What still runs of it finds no more task.
            files.remove_folder(job)


def _run_job(beam_options: str, job: str, num_tasks: int) -> None:
    """Runs a job to its end; why it failed is a file of its folder then."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, beam_options, job, str(num_tasks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=None if os.getenv("PCAM_TRACEBACK") else subprocess.DEVNULL,
        process_group=0,
    ) as process:
        process.wait()


def lead_job() -> None:
    """Runs the job of the command line, and ends this process."""
    beam_options, job, num_tasks = sys.argv[1:]
    results: list[Any] = []
    threading.Thread(
        target=_end_with_driver, args=[results], daemon=True
    ).start()
    try:
        import apache_beam as beam

        pipeline = beam.Pipeline(options=parse_options(beam_options))
        _ = (
            pipeline
            | beam.Create([int(num_tasks)])  # Not all numbers: jobs stay small.
            | beam.FlatMap(lambda count: range(count))
            | beam.Reshuffle()  # Else one worker had them all.
            | beam.Map(task_folder.run_task, job)
        )
        results.append(pipeline.run())
        if (state := results[0].wait_until_finish()) != "DONE":
            raise RuntimeError(f"the job ended as {state}")
    except Exception as error:
        task_folder.write_error(job, task_folder.FAILURE, error)
        logging.exception("%s failed", job)
    os.killpg(0, signal.SIGKILL)  # Threads and workers may be left.


def _end_with_driver(results: list[Any]) -> None:
    """Cancels the job and kills the group of this process, once it is asked."""
    os.read(0, 1)  # It returns when the driver closes its end of the pipe.
    end = (0, signal.SIGKILL)
    threading.Timer(_CANCEL_SECONDS, os.killpg, end).start()
    with contextlib.suppress(Exception):
        results[0].cancel()  # There may be none yet.
    os.killpg(*end)
