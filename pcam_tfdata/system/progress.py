"""A progress bar on a terminal, plain lines elsewhere."""

import io
import logging
import sys
from typing import Any

import tqdm

import pcam_tfdata

_logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10
_LINES: dict[str, Any] = {
    "mininterval": _SECONDS_BETWEEN_LINES,
    "delay": _SECONDS_BETWEEN_LINES,
    "bar_format": "{desc}: {n:,} of {total:,}{unit}, {rate_fmt},"
    " {remaining} left{postfix}",
}


def is_quiet() -> bool:
    """Returns whether the package's logger was set to pass over all notes."""
    return logging.getLogger(pcam_tfdata.__name__).level > logging.INFO


class Progress(tqdm.tqdm):
    """Shows how far a job is, with its rate and the time left.

    A context manager. On a terminal a tqdm bar on stderr; elsewhere a log line
    every ten seconds, so that a short job stays silent. Neither if `is_quiet`.

    Args:
        total: Patches of the job, or what its attribute `unit` is set to.
        description: Of it.
        done: Patches that were done before.
    """

    monitor_interval = 0  # No thread that adapts `miniters`.

    def __init__(self, total: int, description: str, done: int = 0) -> None:
        self._num_patches = total
        self._is_drawn = bool(sys.stderr and sys.stderr.isatty())
        super().__init__(
            total=total,
            desc=description,
            initial=done,
            unit=" patches",
            disable=is_quiet(),
            leave=False,
            miniters=1,
            file=sys.stderr if self._is_drawn else io.StringIO(),
            **({"dynamic_ncols": True} if self._is_drawn else _LINES),
        )

    def advance_to(self, done: int, **scores: float) -> None:
        """Sets how much is done; `scores` stand beside the rate."""
        self.set_postfix(scores, refresh=False)
        # A whole last batch may go beyond the end.
        self.update(min(done, self._num_patches) - self.n)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draws or logs it; what clears a bar is not for the log."""
        if self._is_drawn:
            super().display(msg, pos)
        elif msg is None:
            _logger.info("%s", str(self))
