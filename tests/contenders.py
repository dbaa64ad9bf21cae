"""Contenders for the tests of the harness, in a module quick to import."""

import os
import time
from collections.abc import Iterator


def count_up(size: int) -> Iterator[int]:
    while True:
        yield size


def raise_at_start() -> Iterator[int]:
    raise ValueError("two\nlines")


def raise_at_third() -> Iterator[int]:
    yield 6
    yield 6
    raise OSError("no more")


def import_missing() -> Iterator[int]:
    import no_such_module

    return no_such_module.pieces()


def die() -> Iterator[int]:
    print("the last words", flush=True)
    os._exit(3)


def never_answer() -> Iterator[int]:
    while True:
        time.sleep(1)
        yield 0
