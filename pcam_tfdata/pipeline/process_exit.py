"""NumPy functions that datasets call, and the end of the process.

A dataset prepares batches ahead, in threads of TensorFlow. If Python ends while
one of them is in a NumPy function, the thread never comes back, and whoever
frees the dataset waits for it for ever. So Python waits first.
"""

import atexit
import functools
import threading
import time
from collections.abc import Callable

_STEP_SECONDS = 0.01
# So long without a call, the dataset has prepared all that it will.
_QUIET_STEPS = 10
_LONGEST_SECONDS = 5.0

_running: set[object] = set()
_ending = threading.Event()


def counted(function: Callable) -> Callable:
    """Returns the function; a process that ends waits until it has returned."""

    @functools.wraps(function)
    def call(*arguments: object) -> object:
        token = object()
        _running.add(token)
        try:
            return function(*arguments)
        finally:
            _running.remove(token)

    _register_once()
    return call


def is_ending() -> bool:
    """Returns whether Python ends: a call that waits has to return."""
    return _ending.is_set()


@functools.cache
def _register_once() -> None:
    atexit.register(_wait)


def _wait() -> None:
    _ending.set()
    deadline = time.monotonic() + _LONGEST_SECONDS
    num_quiet = 0
    while num_quiet < _QUIET_STEPS and time.monotonic() < deadline:
        time.sleep(_STEP_SECONDS)
        num_quiet = 0 if _running else num_quiet + 1
