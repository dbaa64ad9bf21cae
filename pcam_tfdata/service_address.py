"""Where a tf.data service is, and whether anybody answers there."""

import logging
import socket
import time

_ATTEMPT_SECONDS = 5.0
_PAUSE_SECONDS = 0.2
# So long without an answer, the log says what is waited for.
_SILENT_SECONDS = 5.0

_logger = logging.getLogger(__name__)


def parse(text: str, flag: str) -> str:
    """Returns `host:port` of `grpc://host:port`, or of `host:port`.

    Raises:
        ValueError: it is neither.
    """
    address = text.removeprefix("grpc://")
    host, _, port = address.rpartition(":")
    is_port = port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
    if not host or not is_port or set(host) & set("/:[]@ "):
        raise ValueError(
            f"{flag}: found {text!r}, expected the address of a dispatcher, as"
            " in grpc://host:5050."
        )
    return address


def answers(address: str) -> bool:
    """Returns whether a connection to `host:port` is accepted."""
    try:
        _connect(address)
    except (OSError, UnicodeError):
        return False
    return True


def wait_for(address: str, seconds: float) -> str:
    """Waits until a dispatcher accepts a connection.

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
            return _connect(address)
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


def _connect(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection(
        (host, int(port)), _ATTEMPT_SECONDS
    ) as connected:
        return connected.getsockname()[0]
