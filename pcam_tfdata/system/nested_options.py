"""Options in dataclasses within dataclasses, by the names of their leaves."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

Options = TypeVar("Options")


def fill(kind: type[Options], values: Mapping[str, object]) -> Options:
    """Returns a `kind`, each leaf the value of its name, or else its default.

    Raises:
        TypeError: a leaf without a default has no value.
    """
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(field.type):
            given[field.name] = fill(field.type, values)  # type: ignore
        elif field.name in values:
            given[field.name] = values[field.name]
    return kind(**given)


def list_leaves(options: Any) -> dict[str, Any]:
    """Returns each leaf's value by its name, in the order of declaration."""
    leaves: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            leaves |= list_leaves(value)
        else:
            leaves[field.name] = value
    return leaves


def list_fields(kind: type) -> dict[str, dataclasses.Field]:
    """Returns each leaf of a dataclass by its name."""
    leaves: dict[str, dataclasses.Field] = {}
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            leaves |= list_fields(field.type)  # type: ignore[arg-type]
        else:
            leaves[field.name] = field
    return leaves
