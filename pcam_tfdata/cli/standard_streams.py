"""Standard streams that cost no job its work, whatever is at their other end."""

import io
import os
import select
import sys

_NUM_STREAMS = 3


def prepare() -> None:
    """Leads streams that a shell has closed (`2>&-`) nowhere.

    Else the next file that the job opens would have the number of one, and get
    what TensorFlow says. What is no UTF-8 in the name of a file is escaped.
    """
    for number in range(_NUM_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # The least number that is free; and children have it as well.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has none for what was closed.
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # As stderr does.


def flush() -> None:
    """Writes what is buffered, except to a reader that has left (`| head`).

    Raises:
        OSError: stdout cannot be written to, as on a full disk.
    """
    for stream, forgiven in (
        (sys.stdout, BrokenPipeError),
        (sys.stderr, OSError),
    ):
        try:
            stream.flush()
        except forgiven:
            # There goes what is buffered, too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except OSError as error:
            error.filename = "standard output"
            raise


def is_left() -> bool:
    """Returns whether stdout is a pipe whose reader has left."""
    stdout = select.poll()
    stdout.register(1, 0)  # For errors alone.
    return bool(stdout.poll(0))
