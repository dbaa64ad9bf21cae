"""`stream` by a tf.data service: workers on other hosts read the shards.

Workers read, check CRCs and shuffle; blocks of records come over the network.
Who is first is chance, so the order is never the same twice, and a run that goes
on begins a new epoch. An epoch is a job of the service, whose shards the
dispatcher deals out one by one (TensorFlow's dynamic sharding): each patch comes
at most once, and what a worker held when it died is left out.
"""

import contextlib
import itertools
import logging
import os
from collections.abc import Generator, Iterator

import numpy as np
import tensorflow as tf

from pcam_tfdata.data_service import read_ahead, service_address
from pcam_tfdata.pipeline import (
    batch_format,
    patch_order,
    patch_source,
    process_exit,
    stream_mode,
)
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import faults, files

_NUM_WAITING = 16  # Blocks, of 3.5 MB each, on their way.

_service = tf.data.experimental.service
_logger = logging.getLogger(__name__)


class ServiceError(RuntimeError):
    """A tf.data service failed; the message says how, in a line."""


class ServedPatches(stream_mode.StreamedPatches):
    """Patches in shards that the workers of a tf.data service read.

    Training batches are to be iterated once. Those of an evaluation are read
    here, since their order matters.

    Args:
        source: Which patches; their paths are those on the hosts of workers too.
        address: Where the dispatcher is.
        timeout_seconds: How long no patch may come.

    Raises:
        FileNotFoundError, ValueError: records are not there or damaged, or the
            source asks for what no service has.
        ConnectionError: no dispatcher answers.
    """

    order = "that of a tf.data service, never the same twice"
    errors = (*stream_mode.StreamedPatches.errors, ServiceError)

    def __init__(
        self, source: patch_source.Source, address: str, timeout_seconds: float
    ) -> None:
        options = source.options
        if options.input not in ("auto", "stream") or options.cache != "none":
            raise ValueError(
                f"--data_service: found it with --input={options.input} and"
                f" --cache={options.cache}, expected stream and none: workers"
                " read records in order, and keep none."
            )
        self._address = service_address.parse(address, "--data_service")
        self._timeout_seconds = timeout_seconds
        stream_mode.refuse_unreadable(source.records)
        shards = source.records.select_patches(source.splits).shards
        shards = tuple(sorted(shards, key=lambda shard: shard.first_row))
        super().__init__(source, records_folder.Selection(shards))
        service_address.wait_for(self._address, timeout_seconds)
        self.plan = (
            f"stream, by the tf.data service at {self._address}; its order is"
            " never the same twice"
        )
        self._first_row = np.array([shard.first_row for shard in shards])
        self._is_compared = np.zeros(len(shards), np.bool_)

    def _read_steps(self, steps: patch_order.Steps) -> tf.data.Dataset:
        size, parts = steps.batch_size, batch_format.TRAIN_PARTS
        num_steps = max(0, steps.num_steps - steps.first_step)
        blocks = self._read_epochs(steps, num_steps * size)
        next_block = process_exit.counted(lambda: next(blocks))

        def read_block(_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            row, start = tf.numpy_function(next_block, [], [tf.int64, tf.uint8])
            row.set_shape([None])
            start.set_shape([None, stream_mode.START_BYTES])
            return row, start

        ds = tf.data.Dataset.counter().map(read_block)
        ds = ds.rebatch(size, drop_remainder=True).take(num_steps)
        return ds.map(
            lambda row, start: stream_mode.to_batch(row, start, size, parts)
        )

    def _read_epochs(
        self, steps: patch_order.Steps, num_wanted: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields blocks of rows and Examples, epoch after epoch."""
        for epoch in itertools.count():
            if num_wanted <= 0:
                return
            draw = np.random.default_rng((steps.seed, steps.first_step, epoch))
            with contextlib.closing(self._read_epoch(draw)) as blocks:
                for rows, starts in blocks:
                    num_wanted -= len(rows)
                    if num_wanted <= 0:
                        # Nobody comes again after the last block.
                        blocks.close()
                    yield rows, starts

    def _read_epoch(
        self, draw: np.random.Generator
    ) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Yields each patch at most once, until no more come."""
        is_missing = np.ones(self.selection.shards[-1].end_row, np.bool_)
        num_missing, reason = self.num_patches, "a worker has fewer"
        blocks = read_ahead.read_ahead(
            lambda: self._distribute(draw), self._timeout_seconds
        )
        try:
            for rows, starts in blocks:
                self._compare_new_shards(rows, starts)
                is_new = is_missing[rows]
                is_missing[rows] = False
                num_missing -= int(np.count_nonzero(is_new))
                yield rows[is_new], starts[is_new]
                if not num_missing:
                    return
        except read_ahead.SilenceError:
            reason = self._explain_silence(num_missing)
        except tf.errors.OpError as error:
            message = faults.one_line(error.message, 400)
            raise ServiceError(
                f"tf.data service at {self._address}: {message}. Its workers"
                " must find the records where this host does."
            ) from error
        finally:
            blocks.close()
        if num_missing == self.num_patches:
            path = self.selection.shards[0].path
            raise ServiceError(
                f"tf.data service at {self._address}: found no patch, expected"
                f" {num_missing:,}. Check that {path} is the same file on every"
                " host."
            )
        _logger.warning(
            "tf.data service at %s: %s of %s patches did not come: %s. The"
            " epoch ends without them.",
            self._address, f"{num_missing:,}", f"{self.num_patches:,}", reason,
        )  # fmt: skip

    def _explain_silence(self, num_missing: int) -> str:
        """Returns why an epoch has no end.

        Raises:
            ServiceError: the dispatcher is gone, or nothing came at all.
        """
        what = "its dispatcher does not answer"
        if service_address.answers(self._address):
            if num_missing < self.num_patches:
                return "a worker has died"
            what = (
                "its dispatcher answers, but from the addresses that workers"
                " gave (pcam data_service --worker_address) no worker sends"
                " patches"
            )
        raise ServiceError(
            f"tf.data service at {self._address}: {what}, for"
            f" {self._timeout_seconds:g} s. Start its servers again (pcam"
            " data_service); the same command then resumes the run."
        )

    def _distribute(self, draw: np.random.Generator) -> tf.data.Dataset:
        """Returns rows and starts of Examples of an epoch, in blocks.

        All but the last stage is what workers do; they have no Python.
        """
        shards = self.selection.shards
        order = [shards[k] for k in draw.permutation(len(shards))]
        paths = [
            path if files.is_remote(path) else os.path.abspath(path)
            for path in (shard.path for shard in order)
        ]
        numbers = [(shard.first_row, shard.num_records) for shard in order]
        first_row, num_records = np.array(numbers, np.int64).T
        ds = tf.data.Dataset.from_tensor_slices((paths, first_row, num_records))
        num_open = min(stream_mode.NUM_OPEN_FILES, len(order))
        ds = ds.interleave(
            stream_mode.read_blocks,
            cycle_length=num_open,
            num_parallel_calls=num_open,
            deterministic=False,
        )
        ds = ds.unbatch()
        ds = ds.shuffle(
            stream_mode.count_shuffled(self), seed=int(draw.integers(1 << 31))
        )
        ds = ds.batch(stream_mode.BLOCK)
        ds = ds.map(
            lambda row, example: (row, stream_mode.decode_start(example))
        )
        ds = batch_format.limit_threads(ds.prefetch(1), 0)
        return ds.apply(
            _service.distribute(
                _service.ShardingPolicy.DYNAMIC,
                f"grpc://{self._address}",
                max_outstanding_requests=_NUM_WAITING,
                compression=None,  # Pixels of tissue do not shrink.
            )
        )

    def _compare_new_shards(self, rows: np.ndarray, starts: np.ndarray) -> None:
        """Holds the first record that comes of each shard against the file here.

        A worker knows a path, and may find another file there.

        Raises:
            ServiceError: the record is another one.
        """
        shard = np.searchsorted(self._first_row, rows, "right") - 1
        new = np.flatnonzero(~self._is_compared[shard])
        for index in new[np.unique(shard[new], return_index=True)[1]]:
            self._is_compared[shard[index]] = True
            here = self.selection.shards[shard[index]]
            record = int(rows[index]) - here.first_row
            try:
                expected = here.read_record(record)[tfrecord.HEADER_BYTES :]
            except OSError as error:
                raise ServiceError(
                    f"{here.path}: cannot be read here ({error}), expected the"
                    " same records on every host. Copy them here again."
                ) from error
            if not expected.startswith(starts[index].tobytes()):
                raise ServiceError(
                    f"{here.path}: record {record} is not the one that a worker"
                    " of the tf.data service finds at that path, expected the"
                    " same records on every host. Copy them to the workers"
                    " again."
                )
