"""All patches, pass after pass, as a tf.data service gives them.

Every pass is a job of the service, whose shards the dispatcher deals out one by
one (dynamic sharding). What a worker held when it died does not come by itself:
rows are ticked off here, and those that did not come are asked for again. So each
comes once in a pass, whoever dies.
"""

import itertools
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata.data_service import (
    service_address,
    spot_check,
    ticks,
    timeouts,
)
from pcam_tfdata.pipeline import batches, streamed
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import files

Block = tuple[np.ndarray, np.ndarray]
# A job of which nothing came for so long has lost something. TensorFlow tries a
# dispatcher that was gone again within 10 seconds.
_LOST_SECONDS = 15.0
# Blocks of 3.5 MB that wait here.
_NUM_WAITING = 16

_service = tf.data.experimental.service
_logger = logging.getLogger(__name__)
_abandoned: list[Iterator] = []


class Passes:
    """All patches in blocks, pass after pass, for ever.

    Args:
        selected: Which.
        service: By whom.
        shuffle_buffer: Records that each worker shuffles.
        seeds: Of the order.
    """

    def __init__(
        self,
        selected: records_folder.Selection,
        service: timeouts.Service,
        shuffle_buffer: int,
        seeds: Sequence[int],
    ) -> None:
        self._shards = selected.shards
        self._num_patches = selected.num_patches
        self._service = service
        self._compared = spot_check.Comparison(selected.shards)
        self._shuffle_buffer = shuffle_buffer
        self._seeds = seeds

    def __iter__(self) -> Iterator[Block]:
        for number in itertools.count():
            yield from self._read_pass(number)

    def _read_pass(self, number: int) -> Iterator[Block]:
        """Yields each patch once, asking again for those that do not come."""
        draw = np.random.default_rng([*self._seeds, number])
        is_missing = np.zeros(max(map(_end_row, self._shards)), bool)
        for shard in self._shards:
            is_missing[shard.first_row : _end_row(shard)] = True
        num_missing = self._num_patches
        listener = timeouts.Listener(self._service)
        lost_seconds = min(_LOST_SECONDS, self._service.timeout_seconds / 2)
        while True:
            shards = [
                shard
                for shard in self._shards
                if is_missing[shard.first_row : _end_row(shard)].any()
            ]
            listener.begin(lost_seconds)
            for rows, starts in self._read_job(shards, draw, listener):
                self._compared.check(rows, starts)
                is_new = is_missing[rows]
                is_missing[rows] = False
                num_missing -= np.count_nonzero(is_new)
                if is_new.all():
                    yield rows, starts
                elif is_new.any():
                    yield rows[is_new], starts[is_new]
                if not num_missing:
                    return
            self._check_again(num_missing, shards, lost_seconds)
            lost_seconds *= 2

    def _read_job(
        self,
        shards: Sequence[records_folder.ShardFile],
        draw: np.random.Generator,
        listener: timeouts.Listener,
    ) -> Iterator[Block]:
        """Yields what a job gives, until its end or until something is lost."""
        # Without a dispatcher TensorFlow would wait for ever in the next line.
        while not service_address.answers(self._service.address):
            listener.tick()
            time.sleep(ticks.TICK_SECONDS)
        elements = self._elements(shards, draw)
        try:
            for kind, rows, starts in elements:
                if kind == ticks.END:
                    return
                if kind == ticks.ELEMENT:
                    yield rows, starts
                    listener.hear()  # Not before: the step may have taken long.
                elif listener.tick():
                    return
        except timeouts.ServiceError:
            # A dispatcher that hangs would let nobody free the job.
            _abandoned.append(elements)
            raise

    def _elements(
        self,
        shards: Sequence[records_folder.ShardFile],
        draw: np.random.Generator,
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields kind, rows (int64 [n]) and Examples (uint8 [n, bytes])."""
        ds = self._read_shuffled(shards, draw)
        try:
            ds = ds.apply(
                _service.distribute(
                    _service.ShardingPolicy.DYNAMIC,
                    f"grpc://{self._service.address}",
                    max_outstanding_requests=_NUM_WAITING,
                    # Pixels of tissue do not shrink (BUILD_NOTES.md).
                    compression=None,
                )
            )
            yield from ticks.with_ticks(ds).as_numpy_iterator()
        except tf.errors.OpError as error:
            raise timeouts.ServiceError(
                f"tf.data service at {self._service.address}:"
                f" {_reason(error)}. Its workers must find the records where"
                " this host does."
            ) from error

    def _read_shuffled(
        self,
        shards: Sequence[records_folder.ShardFile],
        draw: np.random.Generator,
    ) -> tf.data.Dataset:
        """Returns what workers do; they have no Python."""
        order = draw.permutation(len(shards))
        ds = tf.data.Dataset.from_tensor_slices(
            (
                [_path_everywhere(shards[place].path) for place in order],
                tf.constant([shards[p].first_row for p in order], tf.int64),
                tf.constant([_end_row(shards[p]) for p in order], tf.int64),
            )
        )
        num_open = min(streamed.NUM_OPEN_FILES, len(shards))
        ds = ds.interleave(
            _read_blocks,
            cycle_length=num_open,
            num_parallel_calls=num_open,
            deterministic=False,
        )
        ds = ds.unbatch()
        seed = int(draw.integers(1 << 31))
        ds = ds.shuffle(self._shuffle_buffer, seed=seed)
        ds = ds.batch(streamed.BLOCK)
        ds = ds.map(streamed.decode_start)
        return batches.limit_threads(ds.prefetch(1), 0)

    def _check_again(
        self,
        num_missing: int,
        shards: Sequence[records_folder.ShardFile],
        lost_seconds: float,
    ) -> None:
        """Says that patches are asked for again, if that may help.

        Raises:
            silence.ServiceError: they were asked for often enough.
        """
        told = (
            f"tf.data service at {self._service.address}: {num_missing:,} of"
            f" {self._num_patches:,} patches did not come"
        )
        if lost_seconds > self._service.timeout_seconds:
            raise timeouts.ServiceError(
                f"{told}, as often as they were asked for, expected all. Check"
                f" that {shards[0].path} is the same file on every host, and the"
                " logs of its workers."
            )
        _logger.warning(
            "%s; a server has died, or has fewer. They are asked for again.",
            told,
        )


def _read_blocks(
    path: tf.Tensor, first_row: tf.Tensor, end_row: tf.Tensor
) -> tf.data.Dataset:
    """Returns the blocks of a shard; too many records are an error."""

    def check(
        row: tf.Tensor, example: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        told = tf.strings.join([path, ": found more records than expected"])
        with tf.control_dependencies(
            [tf.debugging.Assert(row[-1] < end_row, [told])]
        ):
            return tf.identity(row), example

    return streamed.read_blocks(path, first_row).map(check)


def _end_row(shard: records_folder.ShardFile) -> int:
    return shard.first_row + shard.num_records


def _path_everywhere(path: str) -> str:
    return path if files.is_remote(path) else os.path.abspath(path)


def _reason(error: tf.errors.OpError) -> str:
    """Returns what happened, without TensorFlow's names for where."""
    told = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", str(error.message))
    told = " ".join(told.split())
    if found := re.search(r"assertion failed: \[(.*?)\]", told):
        return found.group(1)  # One of ours.
    return re.sub(r".*Iterator::[^ ]+: ", "", told)[:400]
