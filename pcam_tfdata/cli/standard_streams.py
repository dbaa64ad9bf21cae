"""Standard streams that cost no job its work, whatever is at their other end."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

_NUM_STREAMS = 3


def prepare() -> None:
    """Makes stdout and stderr such that a job can write to them.

    One that a shell has closed (`2>&-`) leads nowhere; else the next file that
    the job opens would have its number, and get what TensorFlow says. A reader
    that has left (`| head`) misses the rest. What cannot be written to stderr is
    lost; what cannot be written to stdout, as on a full disk, is an error.
    """
    for number in range(_NUM_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # The least number that is free; and children have it as well.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = _wrap(1, sys.stdout, BrokenPipeError)
    sys.stderr = _wrap(2, sys.stderr, OSError)


class _Stream(io.TextIOWrapper):
    """Drops what is written once an error of the forgiven kind has come.

    Of text, not of bytes: bytes that a signal's handler lets fail, although they
    were written, would be written again.
    """

    def __init__(self, stream: Any, forgiven: type[OSError]) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        self._stream = stream  # Dropped, it would close the buffer.
        self._forgiven = forgiven

    def write(self, text: str) -> int:
        self._try(super().write, text)
        return len(text)

    def flush(self) -> None:
        self._try(super().flush)

    def _try(self, call: Callable[..., object], *arguments: str) -> None:
        try:
            call(*arguments)
        except self._forgiven:
            # There goes what is buffered, too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        except OSError as error:
            error.filename = "standard output"
            raise


def _wrap(
    number: int, stream: TextIO | None, forgiven: type[OSError]
) -> TextIO:
    # Python has none for what was closed.
    stream = stream or open(number, "w", encoding="utf-8", closefd=False)
    stream.flush()
    return _Stream(stream, forgiven)
