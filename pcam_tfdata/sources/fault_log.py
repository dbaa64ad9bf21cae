"""Faults of a source, of which memory holds a bounded number."""

import collections
from collections.abc import Callable, Sequence

from pcam_tfdata import faults

MAX_LISTED = 1_000


class FaultLog:
    """Faults by kind: 1,000 of a kind are kept, the others are counted.

    A table of ten million rows may be bad in each of them.

    Args:
        path: Of the file or folder that they are faults of.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: list[tuple[int, faults.Fault]] = []
        self._counts: collections.Counter[str] = collections.Counter()

    @property
    def num_faults(self) -> int:
        """How many there are, listed or not."""
        return self._counts.total()

    def add_all(
        self,
        kind: str,
        places: Sequence[int],
        describe: Callable[[int], tuple[str, str]],
    ) -> None:
        """Adds faults of a kind.

        Args:
            kind: What they are called, in the plural.
            places: Where each is; `list_all` is in order of them.
            describe: From k to the name and the reason of the fault at
                places[k]; called for those that are kept.
        """
        room = max(0, MAX_LISTED - self._counts[kind])
        for number, place in enumerate(places[:room]):
            fault = faults.Fault(*describe(number))
            self._found.append((int(place), fault))
        self._counts[kind] += len(places)

    def list_all(self) -> list[faults.Fault]:
        """Returns the faults by place, then one for each kind with more.

        The latter have no name, and say how many are not listed.
        """
        found = sorted(self._found, key=lambda entry: entry[0])
        listed = [fault for _, fault in found]
        for kind, number in sorted(self._counts.items()):
            if number > MAX_LISTED:
                more = f"found {number - MAX_LISTED:,} more {kind}"
                reason = f"{self._path}: {more}, not listed one by one."
                listed.append(faults.Fault("", reason))
        return listed
