"""From flags to the options of a library call."""

import dataclasses
from typing import TypeVar

from absl import flags

Options = TypeVar("Options")


def from_flags(kind: type[Options]) -> Options:
    """Returns a `kind`, each field from the flag of its name."""
    return kind(
        **{
            field.name: flags.FLAGS[field.name].value
            for field in dataclasses.fields(kind)
        }
    )


def value(name: str) -> object:
    """Returns the value of a flag."""
    return flags.FLAGS[name].value
