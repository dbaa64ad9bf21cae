"""What is timed, and the process that it runs in.

A contender has a process to itself and keeps it over all repeats. Its parent
commands it over a pipe; when the parent ends, so does the process, and with it
all that it started.
"""

import dataclasses
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection
from typing import Any

REPEAT, STOP = "repeat", "stop"
READY, TIMED, DONE, FAILED = "ready", "timed", "done", "failed"


@dataclasses.dataclass(frozen=True)
class Contender:
    """Work whose rate is measured.

    Attributes:
        name: In the table.
        factory: Function of a module, called in the process of the contender.
            Returns an endless iterator that does a piece of work at each `next`
            and gives how many patches that was. If the iterator has a method
            `tidy`, it is called after each repeat, untimed.
        arguments: For the factory, by name; they are pickled.
        setting: What a reader must know to judge the rate.
    """

    name: str
    factory: Callable[..., Iterator[int]]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    setting: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How often and how long each contender is timed.

    Attributes:
        num_repeats: Rounds; each contender is timed once in a round.
        warm_up: Pieces before the clock starts, to use up what was prefetched
            while others ran.
        min_patches: Least of a repeat; and
        min_seconds: likewise.
        max_seconds: For the start or a repeat; beyond it a contender has failed.
    """

    num_repeats: int = 7
    warm_up: int = 10
    min_patches: int = 10_000
    min_seconds: float = 1.0
    max_seconds: float = 900.0


def serve(
    pipe: connection.Connection, pickled: bytes, output_path: str
) -> None:
    """Runs a contender as the parent commands; the process' main function.

    Args:
        pipe: Receives REPEAT and STOP; sends READY, or FAILED with a reason;
            then for each repeat TIMED when the clock starts, and DONE with
            patches and seconds.
        pickled: (Contender, Plan). Pickled, so that a failing import is a
            message too.
        output_path: File for what the process prints.
    """
    os.setpgrp()  # The parent ends the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What it starts, it starts as a process of the user's own would.
    multiprocessing.set_start_method(None, force=True)
    _redirect_output(output_path)
    try:
        contender, plan = pickle.loads(pickled)
        pieces = contender.factory(**contender.arguments)
        pipe.send((READY, None))
        while pipe.recv() == REPEAT:
            pipe.send((DONE, _time(pieces, plan, pipe)))
            getattr(pieces, "tidy", _nothing)()
        getattr(pieces, "close", _nothing)()
    except (Exception, SystemExit) as error:
        pipe.send((FAILED, describe_error(error)))


def describe_error(error: BaseException) -> str:
    """Returns an error as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def _time(
    pieces: Iterator[int], plan: Plan, pipe: connection.Connection
) -> tuple[int, float]:
    for _ in range(plan.warm_up):
        next(pieces)
    pipe.send((TIMED, None))
    num_patches, start = 0, time.perf_counter()
    while True:
        num_patches += next(pieces)
        seconds = time.perf_counter() - start
        if num_patches >= plan.min_patches and seconds >= plan.min_seconds:
            return num_patches, seconds


def _redirect_output(path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os.killpg(0, signal.SIGKILL)


def _nothing() -> None:
    """Stands for a method that an iterator lacks."""
