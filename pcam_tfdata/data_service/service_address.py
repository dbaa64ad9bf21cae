"""Where a tf.data service is, and whether somebody answers there."""

import re
import socket
import time

ANY_PORT = "%port%"  # TensorFlow puts in the one that a worker listens on.
_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
# How HTTP/2, on which gRPC stands, begins: a client's preface and empty settings;
# the server's settings come back, a frame of type 4. RFC 9113, 3.4 and 6.5.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, *[0] * 5])
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
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _greet(address)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise ConnectionError(
                    f"{address}: found no dispatcher in {seconds:g} s"
                    f" ({error}), expected one. Check the address, and that"
                    " `pcam data_service --role=dispatcher` runs there."
                ) from error
        time.sleep(_PAUSE_SECONDS)


def _greet(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection(
        (host, int(port)), _ATTEMPT_SECONDS
    ) as server:
        server.sendall(_HELLO)
        if server.recv(4)[3:] != bytes([4]):
            raise OSError("no gRPC is spoken there")
        return server.getsockname()[0]
