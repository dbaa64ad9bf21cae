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
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pcam_tfdata.benchmark import configuration, process_usage, timed_process
from pcam_tfdata.system import workers

_SECONDS_BETWEEN_SAMPLES = 0.02
_SECONDS_TO_END = 10.0
# A contender is idle when it used less than a tenth of this. It refills its
# buffers first, which would take from the next one's time.
_IDLE_SECONDS = 0.1
_MAX_SECONDS_TO_IDLE = 3.0

# Work whose rate is measured. It is called once, in a process of its own. What
# it returns does a piece of work at each `next`, without end, and gives how many
# patches that was. It is pickled: a function of a module, or a partial of one.
Contender = Callable[[configuration.Options], Iterator[int]]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Repeat:
    """The figures of one repeat.

    Attributes:
        num_patches: Patches in the timed part.
        seconds: Length of the timed part.
        cpu_seconds: Processor time in it, of the process and its children;
            None where it cannot be measured.
        peak_bytes: Most anonymous and shared memory during the repeat, summed
            over these processes; None where it cannot be measured.
    """

    num_patches: int
    seconds: float
    cpu_seconds: float | None = None
    peak_bytes: int | None = None

    @property
    def patches_per_second(self) -> float:
        """The rate."""
        return self.num_patches / self.seconds


@dataclasses.dataclass
class Outcome:
    """What came of a contender: its repeats, or why it failed."""

    name: str
    repeats: list[Repeat] = dataclasses.field(default_factory=list)
    error: str | None = None

    def ratio_to(
        self, other: "Outcome", unit: str = "patches_per_second"
    ) -> float | None:
        """Returns its figure in units of another's of the same round.

        The median over the rounds; None if one of both failed.
        """
        if self.error or other.error:
            return None
        pairs = zip(self.repeats, other.repeats, strict=True)
        return statistics.median(
            getattr(own, unit) / getattr(others, unit) for own, others in pairs
        )


def do_nothing(_: configuration.Options) -> None:
    """Prepares nothing."""


def measure(
    contenders: Mapping[str, Contender],
    options: configuration.Options,
    plan: timed_process.Plan,
    prepare: Callable[[configuration.Options], object] = do_nothing,
) -> list[Outcome]:
    """Times every contender, in interleaved repeats.

    Args:
        contenders: What to time, by name.
        options: What they are called with.
        plan: How often and how long.
        prepare: Called with the options before each repeat, untimed.

    Returns:
        The outcomes in the order of `contenders`. One that fails has the
        reason; the others go on without it.
    """
    outcomes = [Outcome(name) for name in contenders]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        running: list[_Process] = []
        for name, contender in contenders.items():
            _logger.info("%s: starting", name)
            pickled = pickle.dumps((contender, options, prepare, plan))
            output_path = os.path.join(folder, f"{len(running)}.log")
            process = _Process(pickled, output_path, plan.max_seconds)
            stack.push(process.end)
            process.start()
            running.append(process)
        for process, outcome in zip(running, outcomes, strict=True):
            with _failure_noted(outcome):
                process.receive()
                process.wait_until_idle()
        for number in range(1, plan.num_repeats + 1):
            _logger.info("round %d of %d", number, plan.num_repeats)
            for process, outcome in zip(running, outcomes, strict=True):
                if outcome.error is None:
                    with _failure_noted(outcome):
                        outcome.repeats.append(process.repeat())
    return outcomes


class _FailedError(Exception):
    """A contender that cannot go on, and why."""


@contextlib.contextmanager
def _failure_noted(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except _FailedError as failure:
        outcome.error = str(failure)
        _logger.warning("%s: failed: %s", outcome.name, outcome.error)


class _Process:
    """The process of a contender, seen from its parent."""

    def __init__(
        self, pickled: bytes, output_path: str, max_seconds: float
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._max_seconds = max_seconds
        self._output_path = output_path
        open(output_path, "w").close()  # It may end before it prints.
        self._pipe, self._their_end = context.Pipe()
        self._process = context.Process(
            target=timed_process.serve,
            args=(self._their_end, pickled, output_path),
        )

    def start(self) -> None:
        """Starts it. All start together: importing takes the longest."""
        with workers.start_of_processes():
            self._process.start()
        self._their_end.close()
        self._watch = process_usage.Watch(self._process.pid or 0)

    def repeat(self) -> Repeat:
        """Times one repeat, and waits until the process rests."""
        self._watch.peak_bytes = 0
        self._send(True)
        self.receive()
        before = self._watch.cpu_seconds()
        num_patches, seconds = self.receive()
        after = self._watch.cpu_seconds()
        peak_bytes = self._watch.peak_bytes or None
        used = None if before is None or after is None else after - before
        self.wait_until_idle()
        return Repeat(num_patches, seconds, used, peak_bytes)

    def receive(self) -> Any:
        """Returns the next message; samples memory meanwhile."""
        deadline = time.monotonic() + self._max_seconds
        while not self._pipe.poll(_SECONDS_BETWEEN_SAMPLES):
            self._watch.sample()
            # No end of file: its children may hold the other end of the pipe.
            if not self._process.is_alive() and not self._pipe.poll():
                raise self._ended()
            if time.monotonic() > deadline:
                self._kill()
                raise _FailedError(f"no answer for {self._max_seconds:g} s")
        try:
            message = self._pipe.recv()
        except EOFError as error:
            raise self._ended() from error
        if isinstance(message, str):
            self._kill()
            raise _FailedError(message)
        return message

    def wait_until_idle(self) -> None:
        """Waits, for a while, until it uses no more processor time."""
        deadline = time.monotonic() + _MAX_SECONDS_TO_IDLE
        before = self._watch.cpu_seconds()
        while before is not None and time.monotonic() < deadline:
            time.sleep(_IDLE_SECONDS)
            after = self._watch.cpu_seconds()
            if after is None or after - before < 0.1 * _IDLE_SECONDS:
                return
            before = after

    def end(self, kind: type[BaseException] | None, *_: object) -> None:
        """Ends it, if it was started: at once after an error of a `kind`."""
        if self._process.pid is None:
            return
        if kind is None:
            with contextlib.suppress(_FailedError):
                self._send(False)
                self._process.join(_SECONDS_TO_END)
        self._kill()

    def _kill(self) -> None:
        if self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()  # It may not have a group of its own yet.
        self._process.join()

    def _send(self, goes_on: bool) -> None:
        try:
            self._pipe.send(goes_on)
        except OSError as error:
            raise self._ended() from error

    def _ended(self) -> _FailedError:
        self._process.join(_SECONDS_TO_END)
        code = self._process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        with open(self._output_path, errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        last_words = f": {lines[-1][:300]}" if lines else ""
        return _FailedError(f"the process ended with {how}{last_words}")
