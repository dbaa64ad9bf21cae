"""Equal ids, which are equal pixels: leaks, conflicts, repetitions."""

import collections
from collections.abc import Iterable, Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.audit import finding
from pcam_tfdata.audit import table as tables
from pcam_tfdata.system import name_arrays

_KAGGLE = "kaggle"
_KAGGLE_TEST = "test"
_OFFICIAL_SOURCES = ("hdf5", "tfds")
_OFFICIAL_SPLITS = ("validation", "test")
_BOTH_LABELS = {schema.NEGATIVE, schema.POSITIVE}


def find(table: tables.Table) -> list[finding.Finding]:
    """Returns what equal ids tell."""
    groups = group_equal(table)
    return [
        *_across(table, groups),
        *_test_sets(table, groups),
        *_overlaps(table, groups),
        *_conflicts(table, groups),
        *_within(table, groups),
    ]


def group_equal(table: tables.Table) -> list[list[int]]:
    """Returns the patches of each id that several patches have.

    Groups without a patch of the audited folder are left out.
    """
    ids = table.scanned.ids
    order = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(name_arrays.mark_first(ids[order]))
    ends = np.r_[starts[1:], len(order)]
    several = ends - starts > 1
    groups = [
        order[start:end].tolist()
        for start, end in zip(starts[several], ends[several], strict=True)
    ]
    own = table.sections_of(0)[-1].patches.stop
    return [group for group in groups if group[0] < own]


def _across(
    table: tables.Table, groups: Sequence[Sequence[int]]
) -> list[finding.Finding]:
    groups = [_of_folder(table, group, 0) for group in groups]
    groups = [
        group for group in groups if len(finding.sections_of(table, group)) > 1
    ]
    return _of_groups(
        finding.EXACT_ACROSS,
        finding.LEAK,
        table,
        groups,
        "are in several splits",
    )


def _test_sets(
    table: tables.Table, groups: Sequence[Sequence[int]]
) -> list[finding.Finding]:
    """Names official PCam splits beside Kaggle's test set what they are."""
    found = []
    for other in range(1, len(table.folders)):
        sides = _kaggle_and_official(table, other)
        if not sides:
            continue
        kaggle, official = sides
        tests = _named(table, kaggle, (_KAGGLE_TEST,), labeled=False)
        labeled = _named(table, official, _OFFICIAL_SPLITS, labeled=True)
        shared = [
            pair
            for pair in (
                _in_sections(table, g, tests | labeled) for g in groups
            )
            if finding.sections_of(table, pair) & tests
            and finding.sections_of(table, pair) & labeled
        ]
        if not shared:
            continue
        matched = labeled & set.union(
            *(finding.sections_of(table, pair) for pair in shared)
        )
        names = " and ".join(table.name(number) for number in sorted(matched))
        verb = "is" if len(matched) == 1 else "are"
        text = (
            f"{names} {verb} Kaggle's test set with labels: {len(shared):,} of its"
            f" patches are here. Train on it for no Kaggle submission, and"
            " on no Kaggle data to score on it."
        )
        where = finding.count_splits(table, shared)
        found.append(
            finding.Finding(
                finding.TEST_SET, finding.LEAK, len(shared), text, where, shared
            )
        )
    return found


def _overlaps(
    table: tables.Table, groups: Sequence[Sequence[int]]
) -> list[finding.Finding]:
    found = []
    for other in range(1, len(table.folders)):
        shared = [
            _of_folder(table, group, 0) + _of_folder(table, group, other)
            for group in groups
            if _of_folder(table, group, other)
        ]
        if shared:
            text = (
                f"{len(shared):,} ids are in"
                f" {table.folders[other].records_dir} too"
                f"{finding.blank_note(table, shared)}: do not train on one and score"
                " on the other."
            )
            where = finding.count_splits(table, shared, between_folders=True)
            found.append(
                finding.Finding(
                    finding.EXACT_OVERLAP,
                    finding.LEAK,
                    len(shared),
                    text,
                    where,
                    shared,
                )
            )
    return found


def _conflicts(
    table: tables.Table, groups: Sequence[Sequence[int]]
) -> list[finding.Finding]:
    groups = [g for g in groups if _BOTH_LABELS <= set(table.scanned.labels[g])]
    return _of_groups(
        finding.LABEL_CONFLICT,
        finding.CONFLICT,
        table,
        groups,
        "have label 0 and label 1",
    )


def _within(
    table: tables.Table, groups: Sequence[Sequence[int]]
) -> list[finding.Finding]:
    parts = []
    for group in groups:
        by_section = collections.defaultdict(list)
        for number in _of_folder(table, group, 0):
            by_section[table.section[number]].append(number)
        parts += [part for part in by_section.values() if len(part) > 1]
    return _of_groups(
        finding.EXACT_WITHIN,
        finding.DUPLICATE,
        table,
        parts,
        "are several times in one split",
    )


def _of_groups(
    kind: str,
    gravity: str,
    table: tables.Table,
    groups: Sequence[Sequence[int]],
    what: str,
) -> list[finding.Finding]:
    """Returns that so many ids are or have `what`, if there are any."""
    if not groups:
        return []
    note = finding.blank_note(table, groups)
    text = f"{len(groups):,} ids {what}{note}."
    where = finding.count_splits(table, groups)
    return [finding.Finding(kind, gravity, len(groups), text, where, groups)]


def _of_folder(
    table: tables.Table, group: Iterable[int], folder: int
) -> list[int]:
    sections = table.sections
    return [n for n in group if sections[table.section[n]].folder == folder]


def _in_sections(
    table: tables.Table, group: Iterable[int], sections: set[int]
) -> list[int]:
    return [number for number in group if table.section[number] in sections]


def _named(
    table: tables.Table, folder: int, names: Sequence[str], *, labeled: bool
) -> set[int]:
    return {
        number
        for number, part in enumerate(table.sections)
        if part.folder == folder
        and part.name in names
        and part.labeled == labeled
    }


def _kaggle_and_official(
    table: tables.Table, other: int
) -> tuple[int, int] | None:
    """Returns which of the audited and another folder is which, or None."""
    for kaggle, official in ((0, other), (other, 0)):
        sources = table.folders[kaggle].source, table.folders[official].source
        if sources[0] == _KAGGLE and sources[1] in _OFFICIAL_SOURCES:
            return kaggle, official
    return None
