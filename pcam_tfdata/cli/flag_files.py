"""Finds files of flags: where they are said to be, or among those of the package."""

import os
import pathlib
from collections.abc import Iterable, Iterator

from absl import flags

_PACKAGE = pathlib.Path(__file__).parents[1]
_FLAG = "--flagfile="


def locate(arguments: Iterable[str]) -> Iterator[str]:
    """Yields arguments; --flagfile=configs/X becomes the package's if none is here.

    Raises:
        flags.Error: a file of flags is in neither place.
    """
    rest = iter(arguments)
    for argument in rest:
        if f"{argument}=" == _FLAG:  # Its value may be a word of its own.
            argument += f"={next(rest, '')}"
        name = argument.removeprefix(_FLAG)
        if name == argument or os.path.exists(os.path.expanduser(name)):
            yield argument
        elif name in (own := _list_own()):
            yield f"{_FLAG}{_PACKAGE / name}"
        else:
            raise flags.Error(
                f"{argument}: found no such file, expected one, or one of"
                f" {', '.join(own)}."
            )


def _list_own() -> list[str]:
    found = sorted(_PACKAGE.glob("configs/*.flags"))
    return [path.relative_to(_PACKAGE).as_posix() for path in found]
