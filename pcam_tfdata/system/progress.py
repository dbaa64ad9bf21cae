"""A progress bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time

import tqdm

_logger = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0


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
        self._total = total
        self._description = description
        self._done = self._first = done
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm.tqdm(
            total=total,
            initial=done,
            desc=description,
            unit=" patches",
            disable=not (sys.stderr and sys.stderr.isatty()),
            leave=False,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance_to(self, done: int, **scores: float) -> None:
        """Sets how many patches are done; `scores` stand beside the rate."""
        self._bar.set_postfix(scores, refresh=False)
        self._bar.update(done - self._done)
        self._done = done
        now = time.monotonic()
        if self._bar.disable and now - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._log_line(now, scores)

    def _log_line(self, now: float, scores: dict[str, float]) -> None:
        rate = (self._done - self._first) / (now - self._start)
        left = (self._total - self._done) / rate if rate else float("inf")
        notes = "".join(
            f", {name} {value:.4f}" for name, value in scores.items()
        )
        _logger.info(
            "%s: %s of %s patches, %s patches/s, %.0f s left%s",
            self._description, f"{self._done:,}", f"{self._total:,}",
            f"{rate:,.0f}", left, notes,
        )  # fmt: skip
