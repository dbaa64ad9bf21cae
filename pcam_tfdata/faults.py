"""Faults of the input, collected so that one run shows them all."""

import dataclasses
from collections.abc import Sequence

_MAX_SHOWN = 20


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing wrong with one patch.

    Attributes:
        name: The source's name of the patch.
        reason: Where, what was found, what was expected, what to do. One line.
    """

    name: str
    reason: str


class BadInputError(ValueError):
    """Patches that cannot be used; the message shows the first 20 of them."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = [fault.reason for fault in self.faults[:_MAX_SHOWN]]
        if len(self.faults) > 1:
            shown = min(len(self.faults), _MAX_SHOWN)
            lines.append(f"{len(self.faults):,} faults, {shown} shown.")
        super().__init__("\n".join(lines))
