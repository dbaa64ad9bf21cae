"""Times contenders in turn: A B C, A B C, ... one running at a time.

A machine that others use is slow now and fast then; in a round all contenders
meet about the same moment, so their ratios are steadier than their rates.

A contender has a process to itself and keeps it over all repeats. Its parent
commands it over a pipe; when the parent ends, so does the process, and with it
all that it started.
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
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection
from typing import Any

from pcam_tfdata.benchmark import configuration, process_usage
from pcam_tfdata.system import faults, interruption, workers

_MAX_SECONDS = 900.0  # For a start or a repeat.
_SECONDS_BETWEEN_SAMPLES = 0.25  # Of memory: each looks at all processes.
_SECONDS_TO_END = 10.0
# A contender is idle when it used less than a tenth of this. It refills its
# buffers first, which would take from the next one's time.
_IDLE_SECONDS = 0.1
_MAX_SECONDS_TO_IDLE = 3.0

# Work whose rate is measured. It is called once, in a process of its own. What
# it returns does a piece of work at each `next`, without end, and gives how many
# patches that was; 0 where it only made ready. It is pickled: a function of a
# module, or a partial of one.
Contender = Callable[[configuration.Options], Iterator[int]]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Repeat:
    """The figures of one repeat.

    Attributes:
        num_patches: Patches in the timed part.
        seconds: Length of the timed part.
        cpu_seconds: Processor time in it, of the process and its children; 0
            where it cannot be measured.
        peak_bytes: Most anonymous and shared memory during the repeat, summed
            over these processes; 0 where it cannot be measured.
    """

    num_patches: int
    seconds: float
    cpu_seconds: float = 0
    peak_bytes: int = 0

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


def measure(
    contenders: Mapping[str, Contender], options: configuration.Options
) -> list[Outcome]:
    """Times every contender, in interleaved repeats.

    Args:
        contenders: What to time, by name.
        options: What they are called with; they say how often and how long.

    Returns:
        The outcomes in the order of `contenders`. One that fails has the
        reason; the others go on without it.
    """
    outcomes = [Outcome(name) for name in contenders]
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        running = []
        # All start together: importing takes the longest.
        for number, (name, contender) in enumerate(contenders.items()):
            _logger.info("%s: starting", name)
            pickled = pickle.dumps((contender, options))
            log_path = os.path.join(folder, f"{number}.log")
            with workers.start_of_processes():  # No signal comes in between.
                process = _Process(pickled, log_path)
                running.append(process)
                stack.callback(process.end)
        for number in range(options.num_repeats + 1):
            if number:
                _logger.info("round %d of %d", number, options.num_repeats)
            for process, outcome in zip(running, outcomes, strict=True):
                if outcome.error is not None:
                    continue
                try:
                    if number:
                        outcome.repeats.append(process.repeat())
                    else:
                        process.wait_until_ready()
                except _FailedError as failure:
                    outcome.error = str(failure)
                    _logger.warning("%s: failed: %s", outcome.name, failure)
                    process.end()  # Others need the processor.
    return outcomes


class _FailedError(Exception):
    """A contender that cannot go on, and why."""


class _Process:
    """The process of a contender, seen from its parent."""

    def __init__(self, pickled: bytes, log_path: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._log_path = log_path
        open(log_path, "w").close()  # It may end before it prints.
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, pickled, log_path)
        )
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self._pid = self._process.pid
        self._peak_bytes = 0

    def repeat(self) -> Repeat:
        """Times one repeat, and waits until the process rests."""
        self._peak_bytes = 0
        with contextlib.suppress(OSError):  # `_receive` says that it has ended.
            self._pipe.send(None)
        self._receive()
        before = self._sample()
        num_patches, seconds = self._receive()
        cpu_seconds, peak_bytes = self._sample() - before, self._peak_bytes
        self._wait_until_idle()
        return Repeat(num_patches, seconds, cpu_seconds, peak_bytes)

    def wait_until_ready(self) -> None:
        """Waits until it has started, and rests."""
        self._receive()
        self._wait_until_idle()

    def _receive(self) -> Any:
        """Returns the next message; samples memory meanwhile."""
        deadline = time.monotonic() + _MAX_SECONDS
        try:
            while not self._pipe.poll(_SECONDS_BETWEEN_SAMPLES):
                self._sample()
                if time.monotonic() > deadline:
                    raise _FailedError(f"no answer for {_MAX_SECONDS:g} s")
            message = self._pipe.recv()
            if isinstance(message, str):
                raise _FailedError(message)
            return message
        except (EOFError, OSError) as error:
            raise _FailedError(self._read_last_words()) from error

    def _wait_until_idle(self) -> None:
        """Waits, for a while, until it uses no more processor time."""
        deadline = time.monotonic() + _MAX_SECONDS_TO_IDLE
        before = self._sample()
        while time.monotonic() < deadline:
            time.sleep(_IDLE_SECONDS)
            after = self._sample()
            if after - before < 0.1 * _IDLE_SECONDS:
                return
            before = after

    def end(self) -> None:
        """Ends it, and all that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        self._process.kill()  # It may not have a group of its own yet.
        self._process.join()

    def _sample(self) -> float:
        """Looks at the memory now; returns the processor time until now."""
        cpu_seconds, num_bytes = process_usage.read_usage(self._pid)
        self._peak_bytes = max(self._peak_bytes, num_bytes)
        return cpu_seconds

    def _read_last_words(self) -> str:
        self._process.join(_SECONDS_TO_END)
        code = self._process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        with open(self._log_path, errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
        last_words = f": {lines[-1][:300]}" if lines else ""
        return f"the process ended with {how}{last_words}"


def _serve(
    pipe: connection.Connection, pickled: bytes, output_path: str
) -> None:
    """Runs a contender as the parent commands; the process' main function.

    Args:
        pipe: Receives None for each repeat. Sends None when the contender has
            started; then for each repeat None when the clock starts, and
            patches and seconds when it stops. A text at any time is the reason
            of a failure.
        pickled: The contender and its options. Pickled, so that a failing
            import is a message too.
        output_path: File for what the process prints.
    """
    os.setpgrp()  # The parent ends the whole group.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What it starts, it starts as a process of the user's own would.
    multiprocessing.set_start_method(None, force=True)
    with open(output_path, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, interruption.SIGNALS)
    try:
        contender, options = pickle.loads(pickled)
        pieces = contender(options)
        least_patches = max(1, options.min_patches)
        pipe.send(None)
        while True:
            pipe.recv()
            for _ in range(options.warm_up):
                next(pieces)
            pipe.send(None)
            num_patches, seconds, start = 0, 0.0, time.perf_counter()
            while num_patches < least_patches or seconds < options.min_seconds:
                num_patches += next(pieces)
                seconds = time.perf_counter() - start
            pipe.send((num_patches, seconds))
    except (Exception, SystemExit) as error:
        pipe.send(faults.one_line(f"{type(error).__name__}: {error}", 400))


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os.killpg(0, signal.SIGKILL)
