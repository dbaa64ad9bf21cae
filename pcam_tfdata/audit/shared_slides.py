"""Slides whose patches are on several sides: in splits, and in two folders.

Patches of a slide share its stain, its scanner and its patient. A network that
has learned them scores better on the slide than on others.
"""

from collections.abc import Iterator

import pandas

from pcam_tfdata.audit import audit_report, patch_table


def find_shared_slides(
    table: patch_table.Table,
) -> Iterator[audit_report.Finding]:
    """Yields which known slides labelled splits have in common."""
    shares = _count_shares(table)
    own = shares[shares["folder"] == 0]
    across = own[own.duplicated("slide", keep=False)]
    text = (
        f"Slides of several splits: {across['slide'].nunique():,}, with"
        f" {across['num_patches'].sum():,} patches."
    )
    kind = audit_report.Kind.SLIDE_ACROSS
    yield from _of_shares(table, kind, across, text)
    for number, folder in enumerate(table.folders[1:], 1):
        there = shares[shares["folder"] == number]
        there = there[there["slide"].isin(own["slide"])]
        here = own[own["slide"].isin(there["slide"])]
        text = (
            f"Slides whose names are in {folder.path} too:"
            f" {here['slide'].nunique():,}, with"
            f" {here['num_patches'].sum():,} patches here and"
            f" {there['num_patches'].sum():,} there. Do not train on one and"
            " score on the other."
        )
        kind = audit_report.Kind.SLIDE_OVERLAP
        yield from _of_shares(table, kind, pandas.concat([here, there]), text)


def _count_shares(table: patch_table.Table) -> pandas.DataFrame:
    """Returns the shares that labelled splits have in known slides.

    Returns:
        A row for each slide of a split, in order of appearance: `slide`,
        `section`, `folder`, `first`, the number of a patch, and `num_patches`.
    """
    rows = table.rows[table.rows["labeled"] & table.rows["slide"].ne("")]
    rows = rows.reset_index(names="first")
    shares = rows.groupby(["slide", "section", "folder"], sort=False)["first"]
    return shares.agg(first="min", num_patches="size").reset_index()


def _of_shares(
    table: patch_table.Table,
    kind: audit_report.Kind,
    shares: pandas.DataFrame,
    text: str,
) -> Iterator[audit_report.Finding]:
    """Yields the finding of slides, each with a patch of each of its splits."""
    groups, notes = [], []
    for slide, of_slide in shares.groupby("slide", sort=False):
        groups.append(of_slide["first"].tolist())
        counts = [
            f"{section} {num_patches:,}"
            for section, num_patches in zip(
                of_slide["section"], of_slide["num_patches"], strict=True
            )
        ]
        notes.append(f"slide {slide}: {', '.join(counts)}")
    if groups:
        yield audit_report.find_groups(table, kind, text, groups, notes)
