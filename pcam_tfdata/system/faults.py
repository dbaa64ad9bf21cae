"""Faults of the input, collected so that one run shows them all."""

import dataclasses
import socket
from collections.abc import Sequence

UNREADABLE = "patches that cannot be read"
# Classes of errors whose messages are written for the user.
FOR_USERS = (ValueError, OSError, RuntimeError, ArithmeticError)
_MAX_EXAMPLES = 3
_MAX_SHOWN = 60
_MAX_TEXT = 500


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing wrong with one patch.

    Attributes:
        name: The source's name of the patch.
        reason: Where, what was found, what was expected, what to do. One line.
        kind: What faults like this one are called, in the plural.
    """

    name: str
    reason: str
    kind: str = UNREADABLE


class BadInputError(ValueError):
    """Patches that cannot be used.

    The message shows three faults of each kind, how many there are, and what
    `--on_bad_patch=skip` would leave.

    Args:
        faults: At least one.
        num_left: How many patches can be used; None where none may be skipped.
    """

    def __init__(
        self, faults: Sequence[Fault], num_left: int | None = None
    ) -> None:
        self.faults = tuple(faults)
        by_kind: dict[str, list[Fault]] = {}
        for fault in self.faults:
            by_kind.setdefault(fault.kind, []).append(fault)
        lines = []
        for kind, alike in by_kind.items():
            shown = [fault.reason for fault in alike[:_MAX_EXAMPLES]]
            lines += shown
            if num_more := len(alike) - len(shown):
                lines.append(f"And {num_more:,} more {kind}.")
        advice = ""
        if num_left is not None:
            advice = f" --on_bad_patch=skip would leave {num_left:,} patches."
        total = len(self.faults)
        if total == 1:
            lines[-1] += advice
        else:
            counts = (f"{len(by_kind[kind]):,} {kind}" for kind in by_kind)
            lines.append(f"{total:,} faults: {', '.join(counts)}.{advice}")
        super().__init__("\n".join(lines))


def show(text: str | bytes) -> str:
    """Returns a quoted text for an error, cut if it is long."""
    cut = repr(text[:_MAX_SHOWN])
    return cut if len(text) <= _MAX_SHOWN else f"{cut} and more"


def escape(text: str) -> str:
    """Returns a text that prints in one line; a plain one as it is."""
    return text if text.isprintable() else repr(text)[1:-1]


def one_line(text: object, limit: int | None = None) -> str:
    """Returns the message of an error in one line, cut after `limit` letters."""
    return " ".join(str(text).split())[:limit]


def make_portable(error: Exception) -> Exception:
    """Returns an error that another process can unpickle and tell the user.

    One of a package's own, or that is not written for the user, becomes a
    RuntimeError of one line that names its class and this machine.
    """
    kind, text = type(error), one_line(error, _MAX_TEXT)
    if isinstance(error, FOR_USERS) and kind.__module__ == "builtins":
        return error
    reason = ": ".join(filter(None, (kind.__name__, text)))
    return RuntimeError(f"worker on {socket.gethostname()}: {reason}")
