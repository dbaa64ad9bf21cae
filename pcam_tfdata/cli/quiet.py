"""Imports without TensorFlow's start-up notes, which a signal can end."""

import contextlib
from collections.abc import Iterator

from pcam_tfdata.system import held_output, interruption


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Holds back what is written to stderr, and shows it if an import fails.

    TensorFlow says at its import, from C++ and under any log level, that there
    is no GPU. Commands import it when they run, so that their help and a wrong
    flag need not wait for it. A signal ends the process at once: what a handler
    raises is easily lost in imports, where C calls Python, and there is nothing
    to tidy up yet.
    """
    with (
        interruption.signals_end_process(),
        held_output.stderr(shown_with_errors=True),
    ):
        yield
