"""Imports without TensorFlow's start-up notes."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Holds back what is written to stderr, and shows it if an import fails.

    TensorFlow says at its import, from C++ and under any log level, that there
    is no GPU. Commands import it when they run, so that their help and a wrong
    flag need not wait for it.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
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
