"""A tf.data service that is silent: slow, or missing something, or gone."""

import dataclasses
import logging
import time

from pcam_tfdata.data_service import service_address, ticks
from pcam_tfdata.pipeline import process_exit

_WARN_SECONDS = 10.0

_logger = logging.getLogger(__name__)


class ServiceError(RuntimeError):
    """A tf.data service failed; the message says how, in a line."""


@dataclasses.dataclass(frozen=True)
class Service:
    """A tf.data service.

    Attributes:
        address: `host:port` of its dispatcher.
        timeout_seconds: How long it may be silent.
    """

    address: str
    timeout_seconds: float = 300.0


class Listener:
    """Tells apart a service that is slow, one that lost something, and none.

    Args:
        service: To which it listens.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._is_told = False
        # Since when nothing has come, and since when the dispatcher answers.
        self._silent = self._answering = time.monotonic()
        self.begin(0.0)

    def begin(self, lost_seconds: float) -> None:
        """Notes that patches were asked for.

        Args:
            lost_seconds: After so long without any, those that have not come
                are lost. The first ones may take half of the time for which the
                service may be silent: workers fill their shuffle buffers.
        """
        self._begun = time.monotonic()
        self._lost_seconds = lost_seconds
        self._patience = max(lost_seconds, self._service.timeout_seconds / 2)

    def hear(self) -> None:
        """Notes that patches came."""
        self._is_told = False
        self._silent = time.monotonic()
        self._patience = self._lost_seconds

    def tick(self) -> bool:
        """Returns whether what has not come so far has to be asked for again.

        Raises:
            ServiceError: nothing came for longer than the service may be silent.
        """
        if process_exit.is_ending():
            raise ServiceError("the process ends.")
        silent_seconds = time.monotonic() - self._silent
        if silent_seconds < 2 * ticks.TICK_SECONDS:
            return False
        is_answering = service_address.answers(self._service.address)
        if not is_answering:
            self._answering = time.monotonic()
        self._tell(silent_seconds, is_answering)
        since = max(self._silent, self._answering, self._begun)
        return time.monotonic() - since > self._patience

    def _tell(self, silent_seconds: float, is_answering: bool) -> None:
        """Warns of a silence, and raises at its longest."""
        what = "its dispatcher does not answer"
        if is_answering:
            what = (
                "its dispatcher answers, but from the addresses that workers gave"
                " (pcam data_service --worker_address) no worker sends patches"
            )
        told = f"tf.data service at {self._service.address}: {what}"
        if silent_seconds > self._service.timeout_seconds:
            raise ServiceError(
                f"{told}, for {self._service.timeout_seconds:g} s. Start its"
                " servers again (pcam data_service); the same command then"
                " resumes the run."
            )
        if silent_seconds > _WARN_SECONDS and not self._is_told:
            _logger.warning("%s; waiting.", told)
            self._is_told = True
