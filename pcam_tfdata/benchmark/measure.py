"""Times contenders in turn: A B C, A B C, ... one running at a time.

A machine that others use is slow now and fast then; in a round all contenders
meet about the same moment, so their ratios are steadier than their rates.
"""

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from pcam_tfdata.benchmark import contender, usage
from pcam_tfdata.system import workers

_SECONDS_BETWEEN_SAMPLES = 0.02
_SECONDS_TO_END = 10.0
# A contender is idle when it used less than a tenth of this. It refills its
# buffers first, which would take from the next one's time.
_IDLE_SECONDS = 0.1
_MAX_SECONDS_TO_IDLE = 3.0

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Repeat:
    """What one repeat found.

    Attributes:
        num_patches: Patches in the timed part.
        seconds: Its length.
        cpu_seconds: Processor time in it, of the process and its children;
            None where it cannot be measured.
        peak_bytes: Most anonymous and shared memory during the repeat, summed
            over these processes; likewise None.
    """

    num_patches: int
    seconds: float
    cpu_seconds: float | None = None
    peak_bytes: int | None = None

    @property
    def rate(self) -> float:
        """Patches a second."""
        return self.num_patches / self.seconds


@dataclasses.dataclass
class Outcome:
    """What came of a contender: its repeats, or why it failed."""

    name: str
    setting: str = ""
    repeats: list[Repeat] = dataclasses.field(default_factory=list)
    error: str | None = None


def measure(
    contenders: Sequence[contender.Contender], plan: contender.Plan
) -> list[Outcome]:
    """Times every contender, in interleaved repeats.

    Returns:
        The outcomes in the order of `contenders`. One that fails has the
        reason; the others go on without it.
    """
    outcomes = [Outcome(each.name, each.setting) for each in contenders]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        running = []
        for number, each in enumerate(contenders):
            _logger.info("%s: starting", each.name)
            process = _Process(each, plan, os.path.join(folder, str(number)))
            stack.push(process)
            running.append(process)
            process.start()
        for process, outcome in zip(running, outcomes, strict=True):
            with _noting_failure(outcome):
                process.wait_until_ready()
        for round_number in range(plan.num_repeats):
            _logger.info("round %d of %d", round_number + 1, plan.num_repeats)
            for process, outcome in zip(running, outcomes, strict=True):
                if outcome.error is None:
                    with _noting_failure(outcome):
                        outcome.repeats.append(process.repeat())
    return outcomes


class _FailedError(Exception):
    """A contender that cannot go on, and why."""


@contextlib.contextmanager
def _noting_failure(outcome: Outcome):
    try:
        yield
    except _FailedError as failure:
        outcome.error = str(failure)
        _logger.warning("%s: failed: %s", outcome.name, outcome.error)


class _Process:
    """The process of a contender, seen from its parent.

    Its `__exit__` ends the process, whether it was started or not.
    """

    def __init__(
        self, run: contender.Contender, plan: contender.Plan, output_path: str
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._plan = plan
        self._output_path = output_path
        self._pipe, self._their_end = context.Pipe()
        pickled = pickle.dumps((run, plan))
        self._process = context.Process(
            target=contender.serve,
            args=(self._their_end, pickled, output_path),
        )

    def start(self) -> None:
        """Starts it. All start together: importing takes the longest."""
        with workers.start_of_processes():
            self._process.start()
        self._their_end.close()
        self._watch = usage.Watch(self._process.pid)

    def wait_until_ready(self) -> None:
        """Waits until it has something to time, and rests."""
        self._receive(contender.READY)
        self._wait_until_idle()

    def repeat(self) -> Repeat:
        """Times one repeat."""
        self._watch.reset()
        self._send(contender.REPEAT)
        self._receive(contender.TIMED)
        cpu_before = self._watch.cpu_seconds()
        num_patches, seconds = self._receive(contender.DONE)
        cpu_after = self._watch.cpu_seconds()
        found = Repeat(
            num_patches,
            seconds,
            None if cpu_after is None else cpu_after - cpu_before,
            self._watch.peak_bytes,
        )
        self._wait_until_idle()
        return found

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._process.pid is None:
            return
        if kind is None:
            with contextlib.suppress(_FailedError):
                self._send(contender.STOP)
                self._process.join(_SECONDS_TO_END)
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # It may not have a group of its own yet.
        self._process.join()

    def _send(self, command: str) -> None:
        try:
            self._pipe.send(command)
        except OSError as error:
            raise _FailedError(self._reason_of_end()) from error

    def _receive(self, expected: str) -> Any:
        """Returns the content of the next message; samples memory meanwhile."""
        deadline = time.monotonic() + self._plan.max_seconds
        while not self._pipe.poll(_SECONDS_BETWEEN_SAMPLES):
            self._watch.sample()
            # No end of file: its children may hold the other end of the pipe.
            if not self._process.is_alive() and not self._pipe.poll():
                raise _FailedError(self._reason_of_end())
            if time.monotonic() > deadline:
                self._end()
                raise _FailedError(
                    f"no answer for {self._plan.max_seconds:g} s"
                )
        try:
            kind, content = self._pipe.recv()
        except EOFError as error:
            raise _FailedError(self._reason_of_end()) from error
        if kind == contender.FAILED:
            self._end()
            raise _FailedError(content)
        if kind != expected:
            self._end()
            raise _FailedError(
                f"found the answer {kind} of the process, expected {expected}"
            )
        return content

    def _reason_of_end(self) -> str:
        self._process.join(_SECONDS_TO_END)
        code = self._process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        with open(self._output_path, errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        said = f": {lines[-1][:300]}" if lines else ""
        return f"the process ended with {how}{said}"

    def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + _MAX_SECONDS_TO_IDLE
        before = self._watch.cpu_seconds()
        while before is not None and time.monotonic() < deadline:
            time.sleep(_IDLE_SECONDS)
            after = self._watch.cpu_seconds()
            if after - before < 0.1 * _IDLE_SECONDS:
                return
            before = after
