"""Tasks on Apache Beam: on Flink, Spark, Dataflow, or its own local runners.

`BeamPool.map` does what `workers.Workers.map` does. Workers get their tasks through
a folder, see `beam_tasks`, on a disk that all of them see or in a bucket. The job
itself holds the number of tasks, so that it stays small.

    FOLDER/lock            on a disk: locked by the process that has the jobs
    FOLDER/NAME-NUMBER/    a job
"""

import contextlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pcam_tfdata.beam import beam_job, task_folder
from pcam_tfdata.system import files, locks

_LOCK = "lock"
_JOB = re.compile(r"[a-z]+-[0-9a-f]{16}")  # The name of a job's folder.

_logger = logging.getLogger(__name__)


class BeamPool:
    """A pool of whatever workers a Beam runner has. A context manager.

    Args:
        folder: Of all jobs, seen by the workers too. Jobs that an earlier
            process left there are stopped: their tasks are removed. On a disk
            one process has it at a time; in a bucket the later stops the
            earlier.
        beam_options: Beam's flags, as on a command line.
        expected: The versions that workers must have, by package.

    Raises:
        RuntimeError, ValueError: see `beam_job.parse_options`.
    """

    def __init__(
        self, folder: str, beam_options: str, expected: Mapping[str, str]
    ) -> None:
        self._folder = folder
        self._options = beam_job.parse_options(beam_options)
        self._expected = expected
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "BeamPool":
        """Takes the folder.

        Raises:
            FileExistsError: it holds other things.
            RuntimeError: another process has it.
        """
        _refuse_foreign(self._folder)
        if not files.is_remote(self._folder):
            self._held.enter_context(_hold(self._folder))
        for name in files.list_names(self._folder):
            if _JOB.fullmatch(name):
                files.remove_folder(os.path.join(self._folder, name))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

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
        try:
            num_tasks = task_folder.write(job, function, tasks, self._expected)
            _logger.info(
                "%s: %s patches in %s tasks on Beam.",
                description, f"{num_patches:,}", f"{num_tasks:,}",
            )  # fmt: skip
            failure = (
                beam_job.run(self._options, job, num_tasks)
                if num_tasks
                else None
            )
            return task_folder.collect(job, num_tasks, failure)
        finally:
            # What still runs of it finds no more task.
            files.remove_folder(job)


def has_jobs(folder: str) -> bool:
    """Returns whether there are jobs in a folder that nobody has stopped."""
    return any(
        task_folder.is_there(os.path.join(folder, name))
        for name in files.list_names(folder)
    )


def _refuse_foreign(folder: str) -> None:
    if files.holds_others(folder, _is_own):
        raise FileExistsError(
            f"{folder}: found something other than jobs of Beam, expected a"
            " folder to make. Move it away, or choose another output."
        )


def _is_own(name: str) -> bool:
    return name == _LOCK or _JOB.fullmatch(name) is not None


@contextlib.contextmanager
def _hold(folder: str) -> Iterator[None]:
    """Locks a folder on a disk; at the end it goes, if it is empty."""
    path = os.path.join(folder, _LOCK)
    with locks.hold(
        path,
        "has jobs on Beam for this output",
        "Wait for it, or choose another output.",
    ):
        yield
        os.remove(path)
        with contextlib.suppress(OSError):  # Something was put there meanwhile.
            os.rmdir(folder)
