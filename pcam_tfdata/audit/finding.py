"""One thing that is wrong with a data set, and how many there are where."""

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from pcam_tfdata.audit import table as tables

# In the order of a report.
LEAK, CONFLICT, DUPLICATE, NOTE = "leak", "conflict", "duplicate", "note"
GRAVITIES = (LEAK, CONFLICT, DUPLICATE, NOTE)

EXACT_ACROSS = "exact_across_splits"
TEST_SET = "test_set_with_labels"
EXACT_OVERLAP = "exact_overlap"
NEAR_ACROSS = "near_across_splits"
NEAR_OVERLAP = "near_overlap"
SLIDE_ACROSS = "slide_across_splits"
SLIDE_OVERLAP = "slide_overlap"
LABEL_CONFLICT = "label_conflict"
MASK_CONFLICT = "mask_conflict"
EXACT_WITHIN = "exact_within_split"
NEAR_WITHIN = "near_within_split"
BLANK = "blank"
STAIN_SHIFT = "stain_shift"
CLASS_SHIFT = "class_shift"
NEAR_KINDS = {NEAR_ACROSS, NEAR_OVERLAP, NEAR_WITHIN}
OVERLAP_KINDS = {EXACT_OVERLAP, NEAR_OVERLAP, SLIDE_OVERLAP}
SLIDE_KINDS = {SLIDE_ACROSS, SLIDE_OVERLAP}
KINDS = {
    EXACT_ACROSS: "equal pixels across splits",
    TEST_SET: "the test set with labels",
    EXACT_OVERLAP: "equal pixels in another folder",
    NEAR_ACROSS: "near duplicates across splits",
    NEAR_OVERLAP: "near duplicates in another folder",
    SLIDE_ACROSS: "slides across splits",
    SLIDE_OVERLAP: "slides in another folder",
    LABEL_CONFLICT: "equal pixels with different labels",
    MASK_CONFLICT: "labels that contradict the tumor fraction",
    EXACT_WITHIN: "equal pixels within a split",
    NEAR_WITHIN: "near duplicates within a split",
    BLANK: "nearly blank patches",
    STAIN_SHIFT: "stain shifts between splits",
    CLASS_SHIFT: "class shifts between splits",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        kind: One of `KINDS`.
        gravity: One of `GRAVITIES`.
        count: Of what `text` counts first.
        text: One line for the user.
        where: How many, by pair of splits or by split.
        groups: Numbers of the patches of each pair or group; of a slide, one
            patch of each split.
        notes: A remark on each group, or none at all.
    """

    kind: str
    gravity: str
    count: int
    text: str
    where: dict[str, int] = dataclasses.field(default_factory=dict)
    groups: Sequence[Sequence[int]] = ()
    notes: Sequence[str] = ()


def sort_by_gravity(found: Iterable[Finding]) -> list[Finding]:
    """Returns findings in the order of a report."""
    places = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(
        found, key=lambda f: (GRAVITIES.index(f.gravity), places[f.kind])
    )


def sections_of(table: tables.Table, group: Iterable[int]) -> set[int]:
    """Returns the numbers of the splits that patches are in."""
    return {int(table.section[number]) for number in group}


def count_splits(
    table: tables.Table,
    groups: Iterable[Sequence[int]],
    *,
    between_folders: bool = False,
) -> dict[str, int]:
    """Returns how many groups touch each pair of splits, most first.

    Args:
        table: Of the patches.
        groups: Of patches.
        between_folders: Count only pairs of splits of different folders.
    """
    counts: collections.Counter[str] = collections.Counter()
    for group in groups:
        touched = sorted(sections_of(table, group))
        pairs = itertools.combinations(touched, 2)
        for first, second in (
            [(touched[0],) * 2] if len(touched) == 1 else pairs
        ):
            folders = {table.sections[n].folder for n in (first, second)}
            if len(folders) == 2 or not between_folders:
                counts[_pair_name(table, first, second)] += 1
    return dict(counts.most_common())


def blank_note(table: tables.Table, groups: Sequence[Sequence[int]]) -> str:
    """Returns how many groups show nearly nothing, to stand in a text."""
    count = sum(bool(table.is_blank[group[0]]) for group in groups)
    return f", {count:,} of them nearly blank" if count else ""


def _pair_name(table: tables.Table, first: int, second: int) -> str:
    if first == second:
        return table.name(first)
    return f"{table.name(first)} - {table.name(second)}"
