"""Slides whose patches are on several sides: in splits, and in two folders.

Patches of a slide share its stain, its scanner and its patient. A network that
has learned them scores better on the slide than on others.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from pcam_tfdata.audit import finding
from pcam_tfdata.audit import table as tables


@dataclasses.dataclass(frozen=True)
class _Shares:
    """The shares that labelled splits have in slides, ordered by slide.

    Attributes:
        slide: int64 [num_shares], as in `tables.Table`.
        section: int64 [num_shares], number of the split.
        folder: int64 [num_shares], that the split is in.
        first: int64 [num_shares], number of a patch.
        num_patches: int64 [num_shares].
    """

    slide: np.ndarray
    section: np.ndarray
    folder: np.ndarray
    first: np.ndarray
    num_patches: np.ndarray

    def select(self, chosen: np.ndarray) -> "_Shares":
        """Returns some of the shares: of a bool [num_shares]."""
        columns = vars(self).items()
        return _Shares(**{name: column[chosen] for name, column in columns})


def find(table: tables.Table) -> list[finding.Finding]:
    """Returns which known slides labelled splits have in common."""
    shares = _count_shares(table)
    return [*_across(table, shares), *_overlaps(table, shares)]


def _count_shares(table: tables.Table) -> _Shares:
    labeled = np.array([part.labeled for part in table.sections], bool)
    known = np.flatnonzero((table.slide > 0) & labeled[table.section])
    width = len(table.sections)
    keys, first, counts = np.unique(
        table.slide[known] * width + table.section[known],
        return_index=True,
        return_counts=True,
    )
    first = known[first]
    return _Shares(
        slide=keys // width,
        section=keys % width,
        folder=table.folder[first],
        first=first,
        num_patches=counts,
    )


def _across(table: tables.Table, shares: _Shares) -> list[finding.Finding]:
    own = shares.select(shares.folder == 0)
    slides, num_splits = np.unique(own.slide, return_counts=True)
    shared = own.select(np.isin(own.slide, slides[num_splits > 1]))
    if not len(shared.slide):
        return []
    text = (
        f"Slides of several splits: {len(np.unique(shared.slide)):,}, with"
        f" {shared.num_patches.sum():,} patches."
    )
    return [_leak(table, finding.SLIDE_ACROSS, shared, text)]


def _overlaps(table: tables.Table, shares: _Shares) -> list[finding.Finding]:
    found = []
    own = shares.slide[shares.folder == 0]
    for other in range(1, len(table.folders)):
        both = np.intersect1d(own, shares.slide[shares.folder == other])
        if not len(both):
            continue
        shared = shares.select(
            np.isin(shares.slide, both) & np.isin(shares.folder, (0, other))
        )
        num_here = shared.num_patches[shared.folder == 0].sum()
        num_there = shared.num_patches[shared.folder == other].sum()
        text = (
            f"Slides whose names are in {table.folders[other].records_dir} too:"
            f" {len(both):,}, with {num_here:,} patches here and"
            f" {num_there:,} there. Do not train on one and score on the other."
        )
        found.append(_leak(table, finding.SLIDE_OVERLAP, shared, text))
    return found


def _leak(
    table: tables.Table, kind: str, shares: _Shares, text: str
) -> finding.Finding:
    groups, notes = _describe(table, shares)
    return finding.Finding(
        kind=kind,
        gravity=finding.LEAK,
        count=len(groups),
        text=text,
        where=finding.count_splits(
            table, groups, between_folders=kind == finding.SLIDE_OVERLAP
        ),
        groups=groups,
        notes=notes,
    )


def _describe(
    table: tables.Table, shares: _Shares
) -> tuple[list[list[int]], Sequence[str]]:
    """Returns a patch of each split, and their numbers in words, by slide."""
    starts = np.flatnonzero(np.diff(shares.slide)) + 1
    groups, notes = [], []
    for places in np.split(np.arange(len(shares.slide)), starts):
        groups.append(shares.first[places].tolist())
        counts = ", ".join(
            f"{table.name(shares.section[k])} {shares.num_patches[k]:,}"
            for k in places
        )
        name = table.slide_names[shares.slide[places[0]]]
        notes.append(f"slide {name}: {counts}")
    return groups, notes
