"""What libraries write to stderr, also from C++, held back."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def stderr(*, shown_with_errors: bool = False) -> Iterator[None]:
    """Drops what is written to stderr; an error may bring it back."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        before = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            if shown_with_errors:
                held.seek(0)
                os.write(before, held.read())
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
