"""What the table of patches tells: equal ids, slides, labels, blank patches."""

import pandas

from pcam_tfdata import schema
from pcam_tfdata.audit import audit_report, patch_table

_KAGGLE = "kaggle"
_KAGGLE_TEST = "test"
_OFFICIAL_SOURCES = ("hdf5", "tfds")
_OFFICIAL_SPLITS = ("validation", "test")


def find_equal_ids(table: patch_table.Table) -> list[audit_report.Finding]:
    """Returns which patches of the audited folder have equal ids, so pixels."""
    kinds = audit_report.Kind
    rows = table.rows[table.rows.duplicated("id", keep=False)]
    own = rows[rows["folder"] == 0]
    rows = rows[rows["id"].isin(own["id"])]
    across = own[own.groupby("id")["section"].transform("nunique") > 1]
    within = own[own.duplicated(["id", "section"], keep=False)]
    conflicts = _shared(
        rows[rows["label"] == schema.NEGATIVE],
        rows[rows["label"] == schema.POSITIVE],
    )
    conflicts = rows[rows["id"].isin(conflicts["id"])]
    findings = [
        _of_ids(table, kinds.EXACT_ACROSS, across, "are in several splits"),
        _of_ids(
            table, kinds.LABEL_CONFLICT, conflicts, "have label 0 and label 1"
        ),
        _of_ids(
            table, kinds.EXACT_WITHIN, within, "are several times in one split"
        ),
    ]
    for number, folder in enumerate(table.folders[1:], 1):
        shared = _shared(own, rows[rows["folder"] == number])
        text = f"are in {folder.path} too; do not train on one and score on the other"
        findings += [
            _of_ids(table, kinds.EXACT_OVERLAP, shared, text),
            *_find_test_set(table, rows, 0, number),
            *_find_test_set(table, rows, number, 0),
        ]
    return findings


def find_shared_slides(table: patch_table.Table) -> list[audit_report.Finding]:
    """Returns which known slides labelled splits have in common.

    Patches of a slide share its stain, its scanner and its patient. A network
    that has learned them scores better on the slide than on others.
    """
    kinds = audit_report.Kind
    if table.rows["slide"].eq("").all():
        return []
    shares = _count_shares(table)
    own = shares[shares["folder"] == 0]
    across = own[own.duplicated("slide", keep=False)]
    text = (
        f"Slides of several splits: {across['slide'].nunique():,}, with"
        f" {across['num_patches'].sum():,} patches."
    )
    findings = [_of_shares(table, kinds.SLIDE_ACROSS, across, text)]
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
        both = pandas.concat([here, there])
        findings.append(_of_shares(table, kinds.SLIDE_OVERLAP, both, text))
    return findings


def find_mask_conflicts(table: patch_table.Table) -> list[audit_report.Finding]:
    """Returns which labels say otherwise than the masks did."""
    rows = table.own[table.own["tumor_fraction"].notna()]
    if rows.empty:
        return []
    known = rows[rows["label"] != schema.UNLABELED]
    is_wrong = schema.find_contradictions(
        known["label"].to_numpy(), known["tumor_fraction"].to_numpy()
    )
    conflicts = known[is_wrong]
    num_positive = (conflicts["label"] == schema.POSITIVE).sum()
    text = (
        f"{len(conflicts):,} of {len(known):,} labels contradict the tumor"
        " fraction of their record; label 1 without tumor in the centre:"
        f" {num_positive:,}, label 0 with some:"
        f" {len(conflicts) - num_positive:,}."
    )
    notes = [f"tumor fraction {f:.4f}" for f in conflicts["tumor_fraction"]]
    groups = [[number] for number in conflicts.index]
    kind = audit_report.Kind.MASK_CONFLICT
    return [audit_report.find_groups(table, kind, text, groups, notes)]


def find_blanks(table: patch_table.Table) -> list[audit_report.Finding]:
    """Returns which patches show nearly nothing, those of label 1 first."""
    counts = []
    for label, of_label in table.own.groupby("label")["blank"]:
        share = f"{of_label.sum():,} ({of_label.mean():.2%})"
        counts.append(f"label {label}: {share}")
    blank = table.own[table.own["blank"]]
    text = f"{len(blank):,} patches show nearly nothing; {', '.join(counts)}."
    # Those that claim to show tumor are the ones to look at.
    ordered = blank.sort_values("label", ascending=False, kind="stable")
    groups = [[number] for number in ordered.index]
    kind = audit_report.Kind.BLANK
    return [audit_report.find_groups(table, kind, text, groups)]


def _of_ids(
    table: patch_table.Table,
    kind: audit_report.Kind,
    rows: pandas.DataFrame,
    what: str,
) -> audit_report.Finding:
    """Returns that so many ids are or have `what`."""
    is_within = kind == audit_report.Kind.EXACT_WITHIN
    groups = _group_by(rows, ["id", "section"] if is_within else "id")
    num_blank = rows["blank"][[group[0] for group in groups]].sum()
    blank = f" ({num_blank:,} of them nearly blank)" if num_blank else ""
    text = f"{len(groups):,} ids{blank} {what}."
    return audit_report.find_groups(table, kind, text, groups)


def _find_test_set(
    table: patch_table.Table, rows: pandas.DataFrame, kaggle: int, official: int
) -> list[audit_report.Finding]:
    """Names official PCam splits beside Kaggle's test set what they are.

    Args:
        table: All patches.
        rows: Those whose ids are in the audited folder too.
        kaggle: Number of a folder that may be made from Kaggle's set.
        official: Number of one that may be made from the official set.
    """
    if (
        table.source(kaggle) != _KAGGLE
        or table.source(official) not in _OFFICIAL_SOURCES
    ):
        return []
    test = rows[(rows["folder"] == kaggle) & (rows["split"] == _KAGGLE_TEST)]
    labeled = rows[rows["folder"].eq(official) & rows["labeled"]]
    labeled = labeled[labeled["split"].isin(_OFFICIAL_SPLITS)]
    shared = _shared(test[~test["labeled"]], labeled)
    if shared.empty:
        return []
    groups = _group_by(shared, "id")
    matched = shared["section"][shared["labeled"]].unique()
    verb = "is" if len(matched) == 1 else "are"
    text = (
        f"{' and '.join(matched)} {verb} Kaggle's test set with labels:"
        f" {len(groups):,} of its patches are here. Train on it for no"
        " Kaggle submission, and on no Kaggle data to score on it."
    )
    kind = audit_report.Kind.TEST_SET
    return [audit_report.find_groups(table, kind, text, groups)]


def _shared(
    first: pandas.DataFrame, second: pandas.DataFrame
) -> pandas.DataFrame:
    """Returns the rows whose ids are in both, in order."""
    first = first[first["id"].isin(second["id"])]
    second = second[second["id"].isin(first["id"])]
    return pandas.concat([first, second]).sort_index()


def _group_by(
    rows: pandas.DataFrame, columns: str | list[str]
) -> list[list[int]]:
    """Returns the numbers of patches that have the same in some columns."""
    return [list(numbers) for numbers in rows.groupby(columns).groups.values()]


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
) -> audit_report.Finding:
    """Returns the finding of slides, each with a patch of each of its splits."""
    groups, notes = [], []
    for slide, of_slide in shares.groupby("slide", sort=False):
        groups.append(of_slide["first"].tolist())
        counts = zip(of_slide["section"], of_slide["num_patches"], strict=True)
        shown = ", ".join(f"{section} {count:,}" for section, count in counts)
        notes.append(f"slide {slide}: {shown}")
    return audit_report.find_groups(table, kind, text, groups, notes)
