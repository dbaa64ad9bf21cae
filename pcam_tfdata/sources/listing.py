"""What every kind of source hands to the converter."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Patch:
    """A patch before its pixels are read.

    Attributes:
        name: The source's own name of it, unique within a listing.
        path: Its image file.
        label: 0, 1, or -1 for unlabelled.
        slide: Name of the slide it was cut from, None where that is unknown.
    """

    name: str
    path: str
    label: int
    slide: str | None = None


def is_plain(name: str) -> bool:
    """Returns whether a name is printable, and no path."""
    return (
        name.isprintable()
        and not set(name) & set("/\\")
        and name not in ("", ".", "..")
    )
