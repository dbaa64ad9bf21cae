"""Imports without TensorFlow's start-up notes, which a signal can end."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from pcam_tfdata.system import interruption


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Holds back what is written to stderr, and shows it if an import fails.

    TensorFlow says at its import, from C++ and under any log level, that there
    is no GPU. Commands import it when they run, so that their help and a wrong
    flag need not wait for it. A signal ends the process at once: what a handler
    raises is easily lost in imports, where C calls Python, and there is nothing
    to tidy up yet.
    """
    sys.stderr.flush()
    with interruption.signals_end_process(), tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
