"""Equal ids, which are equal pixels: leaks, conflicts, repetitions."""

from collections.abc import Iterator

import pandas

from pcam_tfdata import schema
from pcam_tfdata.audit import audit_report, patch_table

_KAGGLE = "kaggle"
_KAGGLE_TEST = "test"
_OFFICIAL_SOURCES = ("hdf5", "tfds")
_OFFICIAL_SPLITS = ("validation", "test")


def find_equal_ids(
    table: patch_table.Table,
) -> Iterator[audit_report.Finding]:
    """Yields what ids tell that patches of the audited folder share."""
    kinds = audit_report.Kind
    rows = table.rows[table.rows.duplicated("id", keep=False)]
    own = rows[rows["folder"] == 0]
    rows = rows[rows["id"].isin(own["id"])]
    across = own[own.groupby("id")["section"].transform("nunique") > 1]
    text = "are in several splits"
    yield from _of_ids(table, kinds.EXACT_ACROSS, across, text)
    for number, folder in enumerate(table.folders[1:], 1):
        yield from _test_sets(table, rows, 0, number)
        yield from _test_sets(table, rows, number, 0)
        shared = _shared(own, rows[rows["folder"] == number])
        text = f"are in {folder.path} too"
        advice = ": do not train on one and score on the other"
        yield from _of_ids(table, kinds.EXACT_OVERLAP, shared, text, advice)
    conflicts = _shared(
        rows[rows["label"] == schema.NEGATIVE],
        rows[rows["label"] == schema.POSITIVE],
    )
    conflicts = rows[rows["id"].isin(conflicts["id"])]
    text = "have label 0 and label 1"
    yield from _of_ids(table, kinds.LABEL_CONFLICT, conflicts, text)
    within = own[own.duplicated(["id", "section"], keep=False)]
    text = "are several times in one split"
    yield from _of_ids(table, kinds.EXACT_WITHIN, within, text)


def _of_ids(
    table: patch_table.Table,
    kind: audit_report.Kind,
    rows: pandas.DataFrame,
    what: str,
    advice: str = "",
) -> Iterator[audit_report.Finding]:
    """Yields that so many ids are or have `what`, if there are any."""
    is_within = kind == audit_report.Kind.EXACT_WITHIN
    groups = audit_report.group_by(
        rows, ["id", "section"] if is_within else "id"
    )
    if groups:
        num_blank = rows["blank"][[group[0] for group in groups]].sum()
        blank = f", {num_blank:,} of them nearly blank" if num_blank else ""
        text = f"{len(groups):,} ids {what}{blank}{advice}."
        yield audit_report.find_groups(table, kind, text, groups)


def _test_sets(
    table: patch_table.Table, rows: pandas.DataFrame, kaggle: int, official: int
) -> Iterator[audit_report.Finding]:
    """Names official PCam splits beside Kaggle's test set what they are.

    Args:
        table: All patches.
        rows: Those whose ids are in the audited folder too.
        kaggle: Number of a folder that may be made from Kaggle's set.
        official: Number of one that may be made from the official set.
    """
    sources = table.source(kaggle), table.source(official)
    if sources[0] != _KAGGLE or sources[1] not in _OFFICIAL_SOURCES:
        return
    test = rows[(rows["folder"] == kaggle) & (rows["split"] == _KAGGLE_TEST)]
    labeled = rows[rows["folder"].eq(official) & rows["labeled"]]
    labeled = labeled[labeled["split"].isin(_OFFICIAL_SPLITS)]
    shared = _shared(test[~test["labeled"]], labeled)
    if len(shared):
        groups = audit_report.group_by(shared, "id")
        matched = shared["section"][shared["labeled"]].unique()
        verb = "is" if len(matched) == 1 else "are"
        text = (
            f"{' and '.join(matched)} {verb} Kaggle's test set with labels:"
            f" {len(groups):,} of its patches are here. Train on it for no"
            " Kaggle submission, and on no Kaggle data to score on it."
        )
        kind = audit_report.Kind.TEST_SET
        yield audit_report.find_groups(table, kind, text, groups)


def _shared(
    first: pandas.DataFrame, second: pandas.DataFrame
) -> pandas.DataFrame:
    """Returns the rows whose ids are in both, in order."""
    first = first[first["id"].isin(second["id"])]
    second = second[second["id"].isin(first["id"])]
    return pandas.concat([first, second]).sort_index()
