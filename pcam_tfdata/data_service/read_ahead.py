"""A dataset that is read in a thread, so that waiting for it can end.

If a worker of a tf.data service dies, the end of its job may never come
(TensorFlow 2.21), and nothing from outside ends TensorFlow's own waiting.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import tensorflow as tf

from pcam_tfdata.pipeline import process_exit

_POLL_SECONDS = 0.2


class SilenceError(Exception):
    """No element came in time. Not a `TimeoutError`, which disks raise too."""


def read_ahead(
    make_dataset: Callable[[], tf.data.Dataset],
    num_waiting: int,
    timeout_seconds: float,
) -> Generator[tuple, None, None]:
    """Yields the elements of a dataset as NumPy arrays; closed, it reads no more.

    Args:
        make_dataset: Makes it, in the thread: that may wait for a server too.
        num_waiting: Most elements that are read ahead.
        timeout_seconds: How long no element may come.

    Raises:
        SilenceError: none came for so long, or the process ends.
        tf.errors.OpError: it cannot be read.
    """
    elements: queue.Queue[Any] = queue.Queue(num_waiting)
    closed = threading.Event()
    # While Python ends, nobody may come back from TensorFlow to it.
    call = process_exit.counted(lambda function: function())

    def read() -> None:
        try:
            iterator = call(lambda: make_dataset().as_numpy_iterator())
            element = True
            while element is not None and not _is_over(closed):
                element = call(lambda: next(iterator, None))
                _put(elements, element, closed)
        except Exception as error:
            _put(elements, error, closed)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (element := _take(elements, timeout_seconds)) is not None:
            if isinstance(element, Exception):
                raise element
            yield element
    finally:
        closed.set()


def _is_over(closed: threading.Event) -> bool:
    return closed.is_set() or process_exit.is_ending()


def _put(
    elements: queue.Queue[Any], element: Any, closed: threading.Event
) -> None:
    while not _is_over(closed):
        with contextlib.suppress(queue.Full):
            return elements.put(element, timeout=_POLL_SECONDS)


def _take(elements: queue.Queue[Any], timeout_seconds: float) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and not process_exit.is_ending():
        with contextlib.suppress(queue.Empty):
            return elements.get(timeout=_POLL_SECONDS)
    raise SilenceError
