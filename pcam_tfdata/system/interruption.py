"""Signals that end a job at a moment of its own choosing."""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal came. Not an `Exception`: nothing is to take it for an error."""


class Signals:
    """Puts off Ctrl-C and SIGTERM until the job asks for them.

    A context manager. On leaving it by `Interrupted`, the signal takes the way
    that it would have taken without it. A second signal takes that way at once.
    Without effect on signals that are ignored, and outside of the main thread,
    where Python has no handlers.
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._has_come = False
        self._handlers: dict[int, object] = {}

    @property
    def name(self) -> str:
        """Of the signal that came."""
        return signal.Signals(self._pending).name

    def __enter__(self) -> "Signals":
        self._handlers = _replace_handlers(self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if kind is Interrupted:
            signal.raise_signal(self._pending)

    @property
    def number(self) -> int:
        """Of the signal that came; 0 for none."""
        return self._pending or 0

    def adopt(self, number: int) -> None:
        """Takes a signal that came to another process as if it came to this."""
        self._pending = self._pending or number or None

    def check(self) -> None:
        """Raises `Interrupted` if a signal came."""
        if self._pending is not None:
            raise Interrupted

    def _note(self, number: int, frame: object) -> None:
        if self._has_come:
            self._restore()
            signal.raise_signal(number)
        self._has_come = True
        self._pending = number

    def _restore(self) -> None:
        _set_handlers(self._handlers)


@contextlib.contextmanager
def end_process_at_once() -> Iterator[None]:
    """Lets signals end the process, where no handler of Python could run.

    For calls that may wait for ever in other than Python code.
    """
    with handled_by(signal.SIG_DFL):
        yield


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Has a signal wait until a call has returned; a second one does not wait.

    For calls of TensorFlow: what a handler raises within them may come out as
    another error, and one prediction in two hundred that was ended so aborted
    with a damaged heap.
    """
    came: list[int] = []

    def note(number: int, _: object) -> None:
        if came:
            came.clear()
            _set_handlers(before)
            signal.raise_signal(number)
        came.append(number)

    try:
        with handled_by(note) as before:
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextlib.contextmanager
def handled_by(handler: object) -> Iterator[dict[int, object]]:
    """Gives Ctrl-C and SIGTERM another handler.

    Without effect on signals that are ignored, and outside of the main thread,
    where Python has no handlers.

    Yields:
        The handlers that were there, by number; none without effect.
    """
    before = _replace_handlers(handler)
    try:
        yield before
    finally:
        _set_handlers(before)


def _replace_handlers(handler: object) -> dict[int, object]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    # A shell has the jobs that it puts into the background ignore Ctrl-C.
    return {
        number: signal.signal(number, handler)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }


def _set_handlers(handlers: dict[int, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
