"""Searches for what breaks a promise, by numbered random examples.

An example follows from its number alone, so every run sees the same ones. A
strategy of Hypothesis that draws such files took eight times as long as the checks.
"""

import random
from collections.abc import Callable, Iterable


def hold(
    check: Callable[[bytes], None],
    draw: Callable[[random.Random], bytes],
    numbers: Iterable[int],
) -> None:
    """Checks the example of each number; says of which one it fails."""
    for number in numbers:
        example = draw(random.Random(number))
        try:
            check(example)
        except BaseException as error:
            error.add_note(
                f"{draw.__name__}(random.Random({number})): {example[:300]!r}"
            )
            raise
