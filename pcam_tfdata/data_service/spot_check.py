"""Holds what the workers of a tf.data service read against the files here."""

from collections.abc import Sequence

import numpy as np

from pcam_tfdata.data_service import timeouts
from pcam_tfdata.records import records_folder, tfrecord


class Comparison:
    """Compares the first record that comes of each shard.

    A worker knows a path, and may find another file there.

    Args:
        shards: Which may come.
    """

    def __init__(self, shards: Sequence[records_folder.ShardFile]) -> None:
        self._shards = sorted(shards, key=lambda shard: shard.first_row)
        self._first_row = np.array([s.first_row for s in self._shards])
        self._is_seen = np.zeros(len(self._shards), bool)

    def check(self, rows: np.ndarray, starts: np.ndarray) -> None:
        """Looks at a block, if it has a record of a new shard.

        Args:
            rows: int64 [n].
            starts: Of Examples, uint8 [n, bytes].

        Raises:
            silence.ServiceError: a record is not that of the file here.
        """
        shard = np.searchsorted(self._first_row, rows, "right") - 1
        new = np.flatnonzero(~self._is_seen[shard])
        if not len(new):
            return
        found, first = np.unique(shard[new], return_index=True)
        self._is_seen[found] = True
        for number, place in zip(found, new[first], strict=True):
            self._compare(self._shards[number], rows[place], starts[place])

    def _compare(
        self, shard: records_folder.ShardFile, row: int, start: np.ndarray
    ) -> None:
        record = int(row) - shard.first_row
        try:
            expected = shard.read_record(record)[tfrecord.HEADER_BYTES :]
        except OSError as error:
            raise timeouts.ServiceError(
                f"{shard.path}: cannot be read here ({error.strerror}), expected"
                " the records on every host. Copy them here again."
            ) from error
        if not expected.startswith(start.tobytes()):
            raise timeouts.ServiceError(
                f"{shard.path}: record {record} is not the one that a worker of"
                " the tf.data service finds at that path, expected the same"
                " records on every host. Copy them to the workers again."
            )
