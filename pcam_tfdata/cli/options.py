"""From flags to the options of a library call."""

import dataclasses
import os
from typing import TypeVar

from absl import flags

Options = TypeVar("Options")


def from_flags(kind: type[Options]) -> Options:
    """Returns a `kind`, each field from the flag of its name."""
    return kind(
        **{field.name: value(field.name) for field in dataclasses.fields(kind)}
    )


def value(name: str) -> object:
    """Returns the value of a flag; `~` is the home folder, also after `=`."""
    found = flags.FLAGS[name].value
    return os.path.expanduser(found) if isinstance(found, str) else found
