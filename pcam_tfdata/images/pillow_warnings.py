"""Pillow's warnings as errors, in any number of threads."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

from PIL import Image

_lock = threading.Lock()
_num_inside = 0
_filters = contextlib.ExitStack()


@contextlib.contextmanager
def as_errors() -> Iterator[None]:
    """Raises what Pillow warns of; of an image's size it says nothing.

    Python's filters of warnings belong to the process. `catch_warnings` in two
    threads at a time puts them back in the wrong order and leaves its own
    behind, so the first thread in sets them and the last one out restores them.
    """
    global _num_inside
    with _lock:
        if not _num_inside:
            _filters.enter_context(warnings.catch_warnings())
            _set_filters()
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if not _num_inside:
                _filters.close()


def _set_filters() -> None:
    warnings.filterwarnings("error", module=r"PIL\b")
    for category in (
        Image.DecompressionBombWarning,  # A size costs nothing until decoded.
        DeprecationWarning,  # Of Pillow by Pillow: not about the image.
        PendingDeprecationWarning,
    ):
        warnings.simplefilter("ignore", category)
