"""Ctrl-C and SIGTERM, which end a job at a moment of its own choosing.

All of this is without effect on signals that are ignored, as in a job that a shell
has put into the background, and outside of the main thread, where Python has no
handlers.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEAT_SECONDS = 0.1  # After which a signal that was dropped comes again.


class Interrupted(BaseException):
    """A signal came. Not an `Exception`: nothing is to take it for an error."""


class SignalsDeferred:
    """Has signals wait until a job asks for them, or is done. A context manager.

    On leaving it, a signal that came takes the way that it would have taken
    without it. A second signal takes that way at once.

    For calls of TensorFlow too: what a handler raises within them may come out as
    another error, and one prediction in two hundred that was ended so aborted
    with a damaged heap.

    Args:
        errors_first: Whether an error that leaves it goes before a signal: what
            `Interrupted` was to lead to may have failed. Else the signal does.

    Attributes:
        number: The signal that came; 0 for none.
    """

    def __init__(self, *, errors_first: bool = False) -> None:
        self.number = 0
        self._errors_first = errors_first
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "SignalsDeferred":
        self._handlers = _replace_handlers(self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _set_handlers(self._handlers)
        is_error = kind is not None and not issubclass(kind, Interrupted)
        if self.number and not (is_error and self._errors_first):
            signal.raise_signal(self.number)

    @property
    def name(self) -> str:
        """What the signal that came is called."""
        return signal.Signals(self.number).name

    def adopt(self, number: int) -> None:
        """Takes a signal that came to another process as if it came to this."""
        self.number = self.number or number

    def check(self) -> None:
        """Raises `Interrupted` if a signal came."""
        if self.number:
            raise Interrupted

    def _note(self, number: int, _: object) -> None:
        self.number = number
        _set_handlers(self._handlers)  # A second signal does not wait.


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Defers signals; processes that start meanwhile ignore them.

    They reach the whole process group, and the parent answers for all. The mask
    is what processes inherit; it does not do for the parent, where a thread of
    a library may take the signal.
    """
    with SignalsDeferred():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def signals_end_process() -> Iterator[None]:
    """Lets signals end the process, where no handler of Python could run.

    For calls that may wait for ever in other than Python code.
    """
    before = _replace_handlers(signal.SIG_DFL)
    try:
        yield
    finally:
        _set_handlers(before)


def raise_on_signals() -> None:
    """Has signals raise `KeyboardInterrupt`, of their number, from now on."""
    _replace_handlers(_interrupt)
    sys.unraisablehook = _repeat_dropped


def find_signal(error: BaseException | None) -> int:
    """Returns the signal that an error tells of; 0 for none."""
    # Python 3.11 wraps what __set_name__ raises.
    for candidate in (error, getattr(error, "__cause__", None)):
        if isinstance(candidate, KeyboardInterrupt):
            return next(iter(candidate.args), signal.SIGINT)
    return 0


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


def _repeat_dropped(dropped: "sys.UnraisableHookArgs") -> None:
    """Lets a signal come again that met Python in a finalizer or a callback.

    What is raised there is dropped, and by default printed with a traceback.
    """
    number = find_signal(dropped.exc_value)
    if not number:
        sys.__unraisablehook__(dropped)
        return
    # Raised, because it may have another handler by then.
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
    signal.setitimer(signal.ITIMER_REAL, _REPEAT_SECONDS)


def _replace_handlers(handler: Any) -> dict[int, Any]:
    """Gives signals a handler; returns those that they had."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
