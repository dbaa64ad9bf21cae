"""The process that a contender runs in.

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
from collections.abc import Iterator
from multiprocessing import connection

from pcam_tfdata.system import faults


@dataclasses.dataclass(frozen=True)
class Plan:
    """How often and how long each contender is timed.

    Attributes:
        num_repeats: Rounds; each contender is timed once in a round.
        warm_up: Pieces of work before the clock starts, to use up what was
            prefetched while others ran.
        min_patches: Least number of patches of a repeat.
        min_seconds: Least length of a repeat.
        max_seconds: Time for the start or a repeat; beyond it a contender has
            failed.
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
        pipe: Receives True for each repeat and False for the end. Sends None
            when the contender has started; then for each repeat None when the
            clock starts, and patches and seconds when it stops. A text at any
            time is the reason of a failure.
        pickled: The contender; its options; what to call with them before each
            repeat; the plan. Pickled, so that a failing import is a message too.
        output_path: File for what the process prints.
    """
    os.setpgrp()  # The parent ends the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What it starts, it starts as a process of the user's own would.
    multiprocessing.set_start_method(None, force=True)
    with open(output_path, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        contender, options, prepare, plan = pickle.loads(pickled)
        pieces = contender(options)
        pipe.send(None)
        while pipe.recv():
            prepare(options)
            for _ in range(plan.warm_up):
                next(pieces)
            pipe.send(None)
            pipe.send(_time(pieces, plan))
    except (Exception, SystemExit) as error:
        pipe.send(faults.one_line(f"{type(error).__name__}: {error}", 400))


def _time(pieces: Iterator[int], plan: Plan) -> tuple[int, float]:
    """Returns patches and seconds of a repeat."""
    num_patches, start = 0, time.perf_counter()
    while True:
        num_patches += next(pieces)
        seconds = time.perf_counter() - start
        if num_patches >= plan.min_patches and seconds >= plan.min_seconds:
            return num_patches, seconds


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.killpg(0, signal.SIGKILL)
