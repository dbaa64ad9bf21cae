"""Near duplicates: patches that show the same tissue, and how they differ.

Candidates are found by what they look like, then laid on each other: a pair
counts if the pixels that both have agree. Equal ids are no near duplicates, and
nearly blank patches are left out, because they all look alike.
"""

import dataclasses

import numpy as np

from pcam_tfdata.audit import alignment, near_duplicates, scan
from pcam_tfdata.audit import table as tables
from pcam_tfdata.system import name_arrays, workers

# Of embeddings, and of pixels laid on each other. BUILD_NOTES.md, Audit, says
# what these miss and what they let through.
LEAST_SIMILARITY = 0.65
LEAST_SCORE = 0.6
# Pairs to lay on each other, at 1 ms: a bound on time where all look alike.
MAX_CANDIDATES = 60_000


@dataclasses.dataclass(frozen=True)
class NearPairs:
    """Pairs of patches that show the same, the most alike first.

    Attributes:
        first: int64 [num_pairs], number of a patch, of the audited folder.
        second: int64 [num_pairs], of a later patch of any folder.
        scores: float32 [num_pairs], correlation of the pixels that both have.
        moves: int64 [num_pairs], of the second patch, as in `alignment.turn`.
        shifts: int64 [num_pairs, 2], pixels down and to the right.
        num_left_out: Candidates that were too many to look at: so many are
            known, where patches look alike in thousands there are more.
    """

    first: np.ndarray
    second: np.ndarray
    scores: np.ndarray
    moves: np.ndarray
    shifts: np.ndarray
    num_left_out: int = 0

    def select(self, chosen: np.ndarray) -> "NearPairs":
        """Returns some of the pairs: of a bool [num_pairs] or of places."""
        return dataclasses.replace(
            self,
            first=self.first[chosen],
            second=self.second[chosen],
            scores=self.scores[chosen],
            moves=self.moves[chosen],
            shifts=self.shifts[chosen],
        )


def find(
    pool: workers.Workers, table: tables.Table, *, num_threads: int
) -> NearPairs:
    """Returns the near duplicates within a folder, and of it in others."""
    searched = _searched(table)
    found = near_duplicates.find(
        table.scanned.embeddings[searched],
        least_similarity=LEAST_SIMILARITY,
        num_threads=num_threads,
    )
    is_own = table.folder[searched] == 0
    num_cut = int(found.num_left_out[is_own].sum())
    first, second = searched[found.first], searched[found.second]
    kept = table.folder[first] == 0
    kept &= table.scanned.ids[first] != table.scanned.ids[second]
    first, second = first[kept], second[kept]
    best = np.argsort(-found.similarity[kept], kind="stable")
    best = np.sort(best[:MAX_CANDIDATES])
    first, second = first[best], second[best]
    aligned = scan.align(pool, table.shards, first, second)
    order = np.argsort(-aligned.scores, kind="stable")
    order = order[aligned.scores[order] >= LEAST_SCORE]
    return NearPairs(
        first=first[order],
        second=second[order],
        scores=aligned.scores[order],
        moves=aligned.moves[order],
        shifts=aligned.shifts[order],
        num_left_out=num_cut + int(kept.sum()) - len(best),
    )


def describe_move(move: int, shift: np.ndarray) -> str:
    """Returns how the second patch of a pair was moved, in words."""
    turned = 90 * (move % (alignment.NUM_MOVES // 2))
    parts = ["mirrored"] if move >= alignment.NUM_MOVES // 2 else []
    parts += [f"turned {turned} degrees"] if turned else []
    if np.any(shift):
        parts.append(f"moved {abs(shift[0])} by {abs(shift[1])} pixels")
    return ", ".join(parts) or "same place"


def _searched(table: tables.Table) -> np.ndarray:
    """Returns the patches to compare: of equal ones in a split, the first."""
    candidates = np.flatnonzero(~table.is_blank)
    ids, section = table.scanned.ids, table.section
    order = candidates[np.lexsort((section[candidates], ids[candidates]))]
    fresh = name_arrays.mark_first(ids[order])
    fresh[1:] |= section[order[1:]] != section[order[:-1]]
    return np.sort(order[fresh])
