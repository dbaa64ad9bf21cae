"""Which patch goes where: splits, folds and shards. No pixels, no I/O.

A plan is made of columns and row numbers, not of an object for each patch, so
that one over ten million patches fits into memory.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np

from pcam_tfdata.conversion import folds, write_shard
from pcam_tfdata.records import sharding, tfrecord
from pcam_tfdata.sources import listing


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """A split to write.

    Attributes:
        name: `fold0`, `test` and so on.
        patches: A listing; the split has some of its rows.
        ids: bytes [len(patches)]: the id of each row, or None where they follow
            when the pixels are read.
        rows: int64 [num_patches], rows of the listing in the order of records.
        bounds: Shard k has the rows [bounds[k]:bounds[k + 1]] of `rows`.
    """

    name: str
    patches: listing.Listing
    ids: np.ndarray | None
    rows: np.ndarray
    bounds: Sequence[int]

    @property
    def num_shards(self) -> int:
        """How many files it has."""
        return len(self.bounds) - 1

    def list_tasks(self, folder: str) -> Iterator[write_shard.ShardTask]:
        """Yields the shards, to be written into a folder."""
        for shard in range(self.num_shards):
            rows = self.rows[self.bounds[shard] : self.bounds[shard + 1]]
            name = sharding.shard_name(self.name, shard, self.num_shards)
            yield write_shard.ShardTask(
                path=os.path.join(folder, name),
                split=self.name,
                patches=self.patches.take(rows),
                ids=None if self.ids is None else self.ids[rows],
            )


def plan_splits(
    listings: Sequence[listing.Listing],
    ids: Sequence[np.ndarray | None],
    *,
    num_folds: int,
    seed: int,
    shard_bytes: int,
) -> list[SplitPlan]:
    """Returns the splits in the order of the sidecar.

    A listing that is dealt becomes folds in the order of ids; any other stays
    as it is, in its order.

    Args:
        listings: What the source has, in any order where they are dealt.
        ids: For each listing bytes [num_patches]: record ids, empty for patches
            that are left out; None where they are not known yet and all stay.
        num_folds: How many folds each listing that is dealt becomes.
        seed: Another one deals other folds.
        shard_bytes: Largest size of a shard.

    Raises:
        ValueError: there are fewer groups of patches than folds, or no patch
            to deal.
    """
    splits = []
    for patches, patch_ids in zip(listings, ids, strict=True):
        rows = np.arange(len(patches))
        if patch_ids is not None:
            rows = np.flatnonzero(patch_ids != b"")
        parts = {patches.split: rows}
        if patches.is_dealt:
            assert patch_ids is not None  # Folds are dealt by them.
            parts = _deal(patches, patch_ids, rows, num_folds, seed)
        size = tfrecord.layout(labeled=patches.labeled).record_bytes
        for name, rows in parts.items():
            num_shards = sharding.count_shards(
                len(rows), record_bytes=size, shard_bytes=shard_bytes
            )
            bounds = sharding.shard_bounds(len(rows), num_shards)
            splits.append(SplitPlan(name, patches, patch_ids, rows, bounds))
    return [split for split in splits if len(split.rows)]


def _deal(
    patches: listing.Listing,
    ids: np.ndarray,
    rows: np.ndarray,
    num_folds: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Returns the rows of each fold, in order of id, then of name."""
    if not len(rows):
        raise ValueError(
            f"Split {patches.split}: found no patch that can be used, expected"
            " at least one. Mend the source."
        )
    if len(rows) < len(patches):
        patches, ids = patches.take(rows), ids[rows]
    fold_of_row = folds.assign_folds(
        folds.group_patches(ids, patches.slides),
        patches.labels,
        num_folds=num_folds,
        seed=seed,
    )
    order = np.lexsort((patches.names, ids))
    rows, fold_of_row = rows[order], fold_of_row[order]
    return {f"fold{n}": rows[fold_of_row == n] for n in range(num_folds)}
