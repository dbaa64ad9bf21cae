"""Near duplicates: patches that show the same tissue, and how they differ.

Candidates are found by what they look like, then laid on each other: a pair
counts if the pixels that both have agree. Equal ids are no near duplicates, and
nearly blank patches are left out, because they all look alike.
"""

from typing import Any

import numpy as np
import pandas

from pcam_tfdata import schema
from pcam_tfdata.audit import (
    alignment,
    audit_report,
    patch_table,
    scan,
    similarity_search,
)
from pcam_tfdata.system import workers

# Of embeddings, and of pixels laid on each other. BUILD_NOTES.md, Audit, says
# what these miss and what they let through.
LEAST_SIMILARITY = 0.65
LEAST_SCORE = 0.6
# Pairs to lay on each other, at 1 ms: a bound on time where all look alike.
MAX_CANDIDATES = 60_000


def find_near_duplicates(
    pool: workers.Workers, table: patch_table.Table, *, num_threads: int
) -> tuple[list[audit_report.Finding], int]:
    """Finds near duplicates in several splits, in one, and in other folders.

    Returns:
        The findings, and how many candidates were too many to look at: so many
        are known, where patches look alike in thousands there are more.
    """
    kinds = audit_report.Kind
    pairs, num_left_out = _find_candidates(table, num_threads)
    aligned = scan.align(pool, table.selection, pairs.to_numpy())
    pairs = pairs.join(pandas.DataFrame(aligned))
    pairs = pairs[pairs["score"] >= LEAST_SCORE]
    pairs = pairs.sort_values("score", ascending=False, kind="stable")
    section = table.rows["section"].to_numpy()
    within = section[pairs["first"]] == section[pairs["second"]]
    folder = table.rows["folder"].to_numpy()[pairs["second"]]
    chosen = [
        (kinds.NEAR_ACROSS, (folder == 0) & ~within, "in different splits"),
        (kinds.NEAR_WITHIN, within, "in the same split"),
    ]
    for number, other in enumerate(table.folders[1:], 1):
        is_theirs, where = folder == number, f"with {other.path}"
        chosen.append((kinds.NEAR_OVERLAP, is_theirs, where))
    least = "at least " if num_left_out else ""
    findings = [
        _of_pairs(table, kind, pairs[is_chosen], least, where)
        for kind, is_chosen, where in chosen
        if is_chosen.any() or not num_left_out
    ]
    return findings, num_left_out


def _find_candidates(
    table: patch_table.Table, num_threads: int
) -> tuple[pandas.DataFrame, int]:
    """Returns pairs that look alike, and how many of them were left out.

    A pair is a row: the numbers `first`, of an audited patch, and `second`, of a
    later one of any folder.
    """
    rows = table.rows[~table.rows["blank"]]
    # Of equal ones in a split, the first one is compared.
    rows = rows[~rows.duplicated(["section", "id"])]
    pairs, left_out = similarity_search.find_pairs(
        table.measured["embedding"][rows.index],
        least_similarity=LEAST_SIMILARITY,
        num_threads=num_threads,
    )
    is_own = rows["folder"].eq(0).to_numpy()
    ids = rows["id"].to_numpy()
    pairs = pairs[is_own[pairs["first"]]]
    pairs = pairs[ids[pairs["first"]] != ids[pairs["second"]]]
    best = pairs.nlargest(MAX_CANDIDATES, "similarity").sort_index()
    num_left_out = left_out[is_own].sum() + len(pairs) - len(best)
    numbers = rows.index.to_numpy()[best[["first", "second"]]]
    candidates = pandas.DataFrame(numbers, columns=["first", "second"])
    return candidates, int(num_left_out)


def _of_pairs(
    table: patch_table.Table,
    kind: audit_report.Kind,
    pairs: pandas.DataFrame,
    least: str,
    where: str,
) -> audit_report.Finding:
    groups = pairs[["first", "second"]].to_numpy()
    labels = np.sort(table.rows["label"].to_numpy()[groups], axis=1)
    num_apart = (labels == (schema.NEGATIVE, schema.POSITIVE)).all(axis=1).sum()
    apart = f"; {num_apart:,} have different labels" if num_apart else ""
    what, verb = f"{len(pairs):,} pairs", "show"
    if len(pairs) == 1:
        what, verb = "1 pair", "shows"
    text = (
        f"{least}{what} {where} {verb} the same tissue"
        f" ({_count_moves(pairs)}){apart}."
    )
    notes = [
        f"{_describe_move(pair)}, correlation {pair.score:.2f}"
        for pair in pairs.itertuples()
    ]
    return audit_report.find_groups(table, kind, text, groups.tolist(), notes)


def _count_moves(pairs: pandas.DataFrame) -> str:
    turned = pairs["move"] > 0
    distance = pairs[["down", "right"]].abs().max(axis=1)
    parts = {
        "in the same place": ~turned & (distance == 0),
        "moved by 1-8 pixels": ~turned & (distance > 0) & (distance <= 8),
        f"moved by 9-{alignment.MAX_SHIFT} pixels": ~turned & (distance > 8),
        "turned or mirrored": turned,
    }
    return ", ".join(
        f"{chosen.sum():,} {name}"
        for name, chosen in parts.items()
        if chosen.any()
    )


def _describe_move(pair: Any) -> str:
    """Returns how the second patch of a pair was moved, in words."""
    turned = 90 * (pair.move % (alignment.NUM_MOVES // 2))
    parts = ["mirrored"] if pair.move >= alignment.NUM_MOVES // 2 else []
    parts += [f"turned {turned} degrees"] if turned else []
    if pair.down or pair.right:
        parts.append(f"moved {abs(pair.down)} by {abs(pair.right)} pixels")
    return ", ".join(parts) or "same place"
