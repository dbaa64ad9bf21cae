"""Where a tf.data service is: addresses, ports, and the folder of its state."""

import contextlib
import logging
import os
import re
import socket
import time
from collections.abc import Iterator

from pcam_tfdata.system import files, locks

_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
# So long without an answer, the log says what is waited for.
_SILENT_SECONDS = 5.0
# How HTTP/2, on which gRPC stands, begins: a client's preface and empty settings;
# the server's settings come back. RFC 9113, 3.4 and 6.5.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(
    [0, 0, 0, 4, 0, 0, 0, 0, 0]
)
_TYPE_OF_FRAME, _SETTINGS = 3, 4
_HOST = re.compile(r"[^\s/:@%\[\]]+")
_LOCK = "lock"
# In its folder; TensorFlow gave the names.
_OF_DISPATCHER = {_LOCK, "tf_data_dispatcher_journal", "datasets"}

_logger = logging.getLogger(__name__)


def parse(text: str, flag: str) -> str:
    """Returns `host:port` of `grpc://host:port`, or of `host:port`.

    Raises:
        ValueError: it is neither.
    """
    example = "a dispatcher, as in grpc://host:5050"
    return _parse(text, flag, example, needs_port=True)


def parse_worker(text: str, flag: str) -> str:
    """Returns `host` or `host:port`, without the `grpc://` it may begin with.

    Raises:
        ValueError: it is neither.
    """
    example = "a worker, as in host or host:5051"
    return _parse(text, flag, example, needs_port=False)


def answers(address: str) -> bool:
    """Returns whether a server of gRPC answers at `host:port`."""
    try:
        _greet(address, _ATTEMPT_SECONDS)
    except (OSError, UnicodeError):
        return False
    return True


def wait_for(address: str, seconds: float) -> str:
    """Waits until a server of gRPC answers.

    Args:
        address: `host:port`.
        seconds: The longest wait.

    Returns:
        The address by which this host is known on the way there.

    Raises:
        ConnectionError: there was none in that time.
    """
    start, is_told = time.monotonic(), False
    while True:
        try:
            return _greet(address, min(_ATTEMPT_SECONDS, seconds))
        except (OSError, UnicodeError) as error:
            waited = time.monotonic() - start
            if waited >= seconds:
                reason = getattr(error, "strerror", None) or error
                raise ConnectionError(
                    f"{address}: found no dispatcher of a tf.data service in"
                    f" {seconds:g} s ({reason}), expected one. Check the"
                    " address, and that `pcam data_service --role=dispatcher`"
                    " runs there."
                ) from error
            if waited > _SILENT_SECONDS and not is_told:
                _logger.info("%s: waiting for the dispatcher.", address)
                is_told = True
        time.sleep(min(_PAUSE_SECONDS, seconds))


def refuse_taken_port(port: int) -> None:
    """Refuses a port on which somebody listens: servers of gRPC would share it.

    Raises:
        OSError: the port cannot be listened on.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise OSError(
                f"--port={port}: cannot listen there ({error.strerror}). Choose"
                " another port, or 0 for any."
            ) from error


@contextlib.contextmanager
def claim(work_dir: str) -> Iterator[None]:
    """Keeps a second dispatcher from the same folder, where it can be locked.

    Raises:
        ValueError: the folder is on no disk.
        FileExistsError: it holds other things than a dispatcher's state.
        OSError: it cannot be written.
        RuntimeError: another dispatcher holds it.
    """
    if files.is_remote(work_dir):
        raise ValueError(
            f"--work_dir={work_dir}: found a URL, expected a folder on a disk:"
            " a dispatcher adds to its files there. Choose another folder."
        )
    _refuse_foreign(work_dir)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(
                locks.hold(
                    os.path.join(work_dir, _LOCK),
                    "runs a dispatcher there",
                    "Choose another --work_dir.",
                )
            )
        except OSError as error:
            raise OSError(
                f"--work_dir={work_dir}: cannot be written ({error.strerror})."
                " Choose another folder."
            ) from error
        yield


def _parse(text: str, flag: str, example: str, *, needs_port: bool) -> str:
    address = text.removeprefix("grpc://")
    host, colon, port = address.partition(":")
    has_port = needs_port or colon
    if not _HOST.fullmatch(host) or (has_port and not _is_port(port)):
        raise ValueError(
            f"{flag}: found {text!r}, expected the address of {example}."
        )
    return address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 1 << 16


def _refuse_foreign(work_dir: str) -> None:
    """Refuses a folder that is there and is not, or not only, a dispatcher's."""
    if not os.path.isdir(work_dir):
        return  # What is wrong with it shows when it is made.
    others = sorted(set(os.listdir(work_dir)) - _OF_DISPATCHER)
    if others:
        raise FileExistsError(
            f"--work_dir={work_dir}: found a folder with other files in it"
            f" ({others[0]}), expected none, an empty one or that of a"
            " dispatcher. Choose another folder."
        )


def _greet(address: str, seconds: float) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), seconds) as connected:
        connected.sendall(_HELLO)
        answer = connected.recv(_TYPE_OF_FRAME + 1)
        if answer[_TYPE_OF_FRAME:] != bytes([_SETTINGS]):
            raise OSError("no gRPC is spoken there")
        return connected.getsockname()[0]
