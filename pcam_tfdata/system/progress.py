"""A progress bar on a terminal, plain lines elsewhere."""

import io
import logging
import sys
from typing import Any

import tqdm

_logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10


class Progress:
    """Shows how far a job is, with its rate and the time left.

    A context manager. On a terminal a tqdm bar on stderr; elsewhere a log line
    every ten seconds, so that a short job stays silent.

    Args:
        total: Patches of the job.
        description: Of it.
        done: Patches that were done before.
    """

    def __init__(self, total: int, description: str, done: int = 0) -> None:
        self._bar = _open_bar(
            total=total, initial=done, desc=description, unit=" patches"
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance_to(self, done: int, **scores: float) -> None:
        """Sets how many patches are done; `scores` stand beside the rate."""
        self._bar.set_postfix(scores, refresh=False)
        self._bar.update(done - self._bar.n)


class _Lines(tqdm.tqdm):
    """A bar that is logged instead of drawn."""

    monitor_interval = 0  # No thread that looks after it.

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Logs how far the job is, unless the bar is to be cleared."""
        if msg is None:
            _logger.info("%s", self)


def _open_bar(**options: Any) -> tqdm.tqdm:
    if sys.stderr and sys.stderr.isatty():
        return tqdm.tqdm(leave=False, dynamic_ncols=True, **options)
    return _Lines(
        file=io.StringIO(),
        leave=False,
        miniters=1,
        mininterval=_SECONDS_BETWEEN_LINES,
        delay=_SECONDS_BETWEEN_LINES,
        bar_format="{desc}: {n:,} of {total:,} patches, {rate_fmt},"
        " {remaining} left{postfix}",
        **options,
    )
