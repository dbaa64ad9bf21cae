"""From flags to the options of a library call."""

import dataclasses
import os
from typing import TypeVar

from absl import flags

from pcam_tfdata import choices

Options = TypeVar("Options")

flags.disclaim_key_flags()  # Flags defined here are those of the caller.


def define_input() -> None:
    """Defines --input of the command that calls this."""
    flags.DEFINE_enum(
        "input",
        "auto",
        choices.INPUTS,
        "mmap: gathered from shards on a fast disk; stream: read in order, from"
        " anywhere; device: held by each GPU; auto: chosen, and said why.",
    )


def from_flags(kind: type[Options]) -> Options:
    """Returns a `kind`, each field from the flag of its name."""
    return kind(
        **{field.name: value(field.name) for field in dataclasses.fields(kind)}
    )


def value(name: str) -> object:
    """Returns the value of a flag; `~` is the home folder, also after `=`."""
    found = flags.FLAGS[name].value
    return os.path.expanduser(found) if isinstance(found, str) else found
