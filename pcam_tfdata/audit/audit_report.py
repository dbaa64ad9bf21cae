"""What an audit finds, as one tree: text, JSON, pairs and pictures show it."""

import collections
import dataclasses
import enum
import itertools
from collections.abc import Sequence

from pcam_tfdata.audit import patch_table


class Kind(enum.StrEnum):
    """What can be wrong, in the order of a report: the gravest first.

    Attributes:
        gravity: `leak`, `conflict`, `duplicate` or `note`.
        heading: What it is, in a few words.
    """

    gravity: str
    heading: str

    def __new__(cls, name: str, gravity: str, heading: str) -> "Kind":
        """Returns a kind that is equal to its name."""
        kind = str.__new__(cls, name)
        kind._value_, kind.gravity, kind.heading = name, gravity, heading
        return kind

    EXACT_ACROSS = "exact_across_splits", "leak", "equal pixels across splits"
    TEST_SET = "test_set_with_labels", "leak", "the test set with labels"
    EXACT_OVERLAP = "exact_overlap", "leak", "equal pixels in another folder"
    NEAR_ACROSS = "near_across_splits", "leak", "near duplicates across splits"
    NEAR_OVERLAP = "near_overlap", "leak", "near duplicates in another folder"
    SLIDE_ACROSS = "slide_across_splits", "leak", "slides across splits"
    SLIDE_OVERLAP = "slide_overlap", "leak", "slides in another folder"
    LABEL_CONFLICT = (
        "label_conflict", "conflict", "equal pixels with different labels",
    )  # fmt: skip
    MASK_CONFLICT = (
        "mask_conflict", "conflict", "labels that contradict the tumor fraction",
    )  # fmt: skip
    EXACT_WITHIN = (
        "exact_within_split", "duplicate", "equal pixels within a split",
    )  # fmt: skip
    NEAR_WITHIN = (
        "near_within_split", "duplicate", "near duplicates within a split",
    )  # fmt: skip
    BLANK = "blank", "note", "nearly blank patches"
    STAIN_SHIFT = "stain_shift", "note", "stain shifts between splits"
    CLASS_SHIFT = "class_shift", "note", "class shifts between splits"


@dataclasses.dataclass(frozen=True)
class Example:
    """Patches that show what was found, such as a pair, and a remark on them.

    Of a slide that splits share, it is one patch of each split.
    """

    note: str
    patches: list[patch_table.Patch]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing; of count 0, one that is not.

    Attributes:
        kind: What it is.
        title: The heading of the kind.
        gravity: That of the kind.
        count: How many there are of what `text` counts first.
        text: One line for the user.
        where: How many, by split or pair of splits, most first.
        examples: All that was found, where it is of patches.
    """

    kind: Kind
    title: str
    gravity: str
    count: int
    text: str
    where: dict[str, int]
    examples: list[Example]


@dataclasses.dataclass(frozen=True)
class FolderSummary:
    """A records folder: its path, kind of source, hash of its manifest, size."""

    records_dir: str
    source: str
    manifest_sha256: str
    num_patches: int


@dataclasses.dataclass(frozen=True)
class Shift:
    """A split that differs from the other labelled splits of its folder.

    Attributes:
        measure: What differs, such as `red density`.
        here: Its mean in the split.
        elsewhere: Its mean in the others.
        effect: Cohen's d or h; positive if `here` is larger.
    """

    measure: str
    here: float
    elsewhere: float
    effect: float


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """What the patches of a split are like: counts, and means over patches.

    Attributes:
        share_of_label_1: None where there are no labels.
        channel_mean: Red, green and blue in [0, 255].
        density: Optical density of each channel.
        tissue: Share of pixels that are no bare glass.
        shift: The largest one of the stain from the other labelled splits, if
            there are such splits.
    """

    name: str
    num_patches: int
    num_blank: int
    share_of_label_1: float | None
    channel_mean: list[float]
    density: list[float]
    tissue: float
    shift: Shift | None


@dataclasses.dataclass(frozen=True)
class Report:
    """What is wrong with a records folder, and what it is like.

    Attributes:
        leaks: Whether a finding is a leak.
        folders: The audited one first.
        findings: The gravest first.
        not_found: The headings of what was looked for and is not there.
        splits: Those of the audited folder.
        num_pairs_left_out: Pairs that look alike but were too many to compare:
            at least so many. Where it is not 0, near duplicates are counted at
            the least too, and kinds without any are not in `not_found`.
    """

    leaks: bool
    folders: list[FolderSummary]
    findings: list[Finding]
    not_found: list[str]
    splits: list[SplitSummary]
    num_pairs_left_out: int


def find_groups(
    table: patch_table.Table,
    kind: Kind,
    text: str,
    groups: Sequence[list[int]],
    notes: Sequence[str] = (),
) -> Finding:
    """Returns a finding about groups of patches, which are its examples.

    Args:
        table: All patches.
        kind: What the finding is.
        text: One line for the user.
        groups: Numbers of the patches of each group, in order.
        notes: A remark on each group, or none at all.
    """
    patches = table.describe([n for group in groups for n in group])
    examples = [
        Example(note, list(itertools.islice(patches, len(group))))
        for group, note in itertools.zip_longest(groups, notes, fillvalue="")
    ]
    section = table.rows["section"].to_numpy()
    where: collections.Counter[str] = collections.Counter()
    for group in groups:
        touched = list(dict.fromkeys(section[group]))
        pairs = itertools.combinations(touched, 2)
        where.update(map(" - ".join, pairs) if len(touched) > 1 else touched)
    return Finding(
        kind=kind,
        title=kind.heading,
        gravity=kind.gravity,
        count=len(groups),
        text=text,
        where=dict(where.most_common()),
        examples=examples,
    )
