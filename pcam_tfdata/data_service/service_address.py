"""Where a tf.data service is, and whether somebody answers there."""

import logging
import re
import socket
import time

_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
# So long without an answer, the log says what is waited for.
_SILENT_SECONDS = 5.0
# How HTTP/2, on which gRPC stands, begins: a client's preface and empty settings;
# the server's settings come back. RFC 9113, 3.4 and 6.5.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, *[0] * 5])
_TYPE_OF_FRAME, _SETTINGS = 3, 4
_ADDRESS = re.compile(r"[^\s/:@%\[\]]+(?::([0-9]{1,5}))?")

_logger = logging.getLogger(__name__)


def parse(text: str, flag: str, *, needs_port: bool = True) -> str:
    """Returns an address without the `grpc://` that it may begin with.

    Args:
        text: `host:port`.
        flag: Its flag, for the message.
        needs_port: Whether `host` alone is none.

    Raises:
        ValueError: it is no such address.
    """
    address = text.removeprefix("grpc://")
    match = _ADDRESS.fullmatch(address)
    port = match and (match[1] or (None if needs_port else "1"))
    if not port or not 0 < int(port) < 1 << 16:
        raise ValueError(
            f"{flag}: found {text!r}, expected an address, as in"
            " grpc://host:5050."
        )
    return address


def answers(address: str) -> bool:
    """Returns whether a server of gRPC answers at `host:port`."""
    try:
        wait_for(address, 0)
    except ConnectionError:
        return False
    return True


def wait_for(address: str, seconds: float) -> str:
    """Waits until a server of gRPC answers.

    Args:
        address: `host:port`.
        seconds: The longest wait; there is one attempt at least.

    Returns:
        The address by which this host is known on the way there.

    Raises:
        ConnectionError: there was none in that time.
    """
    start, is_logged = time.monotonic(), False
    while True:
        try:
            return _greet(
                address, min(_ATTEMPT_SECONDS, seconds or _ATTEMPT_SECONDS)
            )
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
            if waited > _SILENT_SECONDS and not is_logged:
                _logger.info("%s: waiting for the dispatcher.", address)
                is_logged = True
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


def _greet(address: str, seconds: float) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), seconds) as connected:
        connected.sendall(_HELLO)
        answer = connected.recv(_TYPE_OF_FRAME + 1)
        if answer[_TYPE_OF_FRAME:] != bytes([_SETTINGS]):
            raise OSError("no gRPC is spoken there")
        return connected.getsockname()[0]
