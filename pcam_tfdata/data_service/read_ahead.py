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
    make_dataset: Callable[[], tf.data.Dataset], timeout_seconds: float
) -> Generator[tuple, None, None]:
    """Yields the elements of a dataset as NumPy arrays; closed, it reads no more.

    Args:
        make_dataset: Makes it, in the thread: that may wait for a server too.
        timeout_seconds: How long no element may come.

    Raises:
        SilenceError: none came for so long, or the process ends.
        tf.errors.OpError: it cannot be read.
    """
    elements: queue.Queue[Any] = queue.Queue(1)
    closed = threading.Event()
    # While Python ends, nobody may come back from TensorFlow to it.
    call = process_exit.counted(lambda function: function())

    def read() -> None:
        try:
            iterator = call(lambda: make_dataset().as_numpy_iterator())
            element = True
            while element is not None and not closed.is_set():
                element = call(lambda: next(iterator, None))
                elements.put(element)
        except Exception as error:
            elements.put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (element := _take(elements, timeout_seconds)) is not None:
            if isinstance(element, Exception):
                raise element
            yield element
    finally:
        closed.set()
        with contextlib.suppress(queue.Empty):  # The thread may wait for room.
            elements.get_nowait()


def _take(elements: queue.Queue[Any], timeout_seconds: float) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and not process_exit.is_ending():
        with contextlib.suppress(queue.Empty):
            return elements.get(timeout=_POLL_SECONDS)
    raise SilenceError
