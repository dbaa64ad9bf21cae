"""Where a tf.data service is, and whether somebody answers there."""

import logging
import re
import socket
import time

ANY_PORT = "%port%"  # TensorFlow puts in the one that a worker listens on.
_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
_SILENT_SECONDS = 5.0  # Then it says that it waits.
# How HTTP/2, on which gRPC stands, begins: a client's preface and empty settings;
# the server's settings come back, a frame of type 4. RFC 9113, 3.4 and 6.5.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, *[0] * 5])
_logger = logging.getLogger(__name__)
_ADDRESS = re.compile(r"(?:grpc://)?([^\s/:@%\[\]]+)(?::([0-9]{1,5}))?")


def parse(text: str, flag: str, default_port: str = "") -> str:
    """Returns an address as `host:port`.

    Args:
        text: The same, perhaps behind `grpc://`.
        flag: Its flag, for the message.
        default_port: Takes the place of a port; without it, one has to be there.

    Raises:
        ValueError: it is no such address.
    """
    match = _ADDRESS.fullmatch(text)
    port = match and (match[2] or default_port)
    if not match or not port or not 0 < int(match[2] or 1) < 1 << 16:
        raise ValueError(
            f"{flag}: found {text!r}, expected one as grpc://host:5050."
        )
    return f"{match[1]}:{port}"


def wait_for(address: str, seconds: float) -> str:
    """Waits until a server of gRPC answers.

    Args:
        address: `host:port`.
        seconds: How long attempts are made; there is one at least.

    Returns:
        The address by which this host is known on the way there.

    Raises:
        ConnectionError: there was none in that time.
    """
    attempt_seconds = min(_ATTEMPT_SECONDS, max(1, seconds))
    start, is_told = time.monotonic(), False
    while True:
        try:
            return _greet(address, attempt_seconds)
        except (OSError, UnicodeError) as error:
            waited = time.monotonic() - start
            if waited >= seconds:
                raise ConnectionError(
                    f"{address}: found no dispatcher in {seconds:g} s"
                    f" ({error}), expected one. Check the address, and that"
                    " `pcam data_service --role=dispatcher` runs there."
                ) from error
            if waited > _SILENT_SECONDS and not is_told:
                _logger.info("%s: waiting for the dispatcher.", address)
                is_told = True
        time.sleep(_PAUSE_SECONDS)


def _greet(address: str, seconds: float) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), seconds) as server:
        server.sendall(_HELLO)
        if server.recv(4)[3:] != bytes([4]):
            raise OSError("no gRPC is spoken there")
        return server.getsockname()[0]
