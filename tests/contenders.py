"""Contenders for the tests of the harness, in a module quick to import."""

import os
import time
from collections.abc import Iterator


def count_up(_: object) -> Iterator[int]:
    while True:
        yield 3


def raise_at_start(_: object) -> Iterator[int]:
    raise ValueError("two\nlines")


def raise_at_third(_: object) -> Iterator[int]:
    yield 6
    yield 6
    raise OSError("no more")


def import_missing(_: object) -> Iterator[int]:
    import no_such_module

    return no_such_module.pieces()


def die(_: object) -> Iterator[int]:
    print("the last words", flush=True)
    os._exit(3)


def never_answer(_: object) -> Iterator[int]:
    while True:
        time.sleep(1)
        yield 0
