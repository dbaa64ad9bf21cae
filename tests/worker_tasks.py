"""Tasks for the tests that workers import without the rest of the tests."""

import os
import time


def find_process(number: int) -> int:
    """Returns the process that it runs in."""
    time.sleep(0.2)  # Time for the others to take the next one.
    return os.getpid()
