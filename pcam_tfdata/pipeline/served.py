"""`stream` by a tf.data service: workers on other hosts read the shards.

Workers read, check CRCs and shuffle; blocks of records come over the network and
are copied into batches here. Every pass over the patches is a job of its own,
whose shards the dispatcher deals out one by one (dynamic sharding). What a worker
held when it died does not come by itself: rows are ticked off here, and those
that did not come are asked for again. So each comes once in a pass, whoever dies.

Who is first is chance, so the order is not the same twice.
"""

import dataclasses
import itertools
import logging
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import files, schema, service_address
from pcam_tfdata.pipeline import batches, buffers, calls, selection, streamed

_service = tf.data.experimental.service
Block = tuple[np.ndarray, np.ndarray]
# Kinds of what comes from a job, beside blocks of patches.
_PATCHES, _TICK, _END = range(3)
_TICK_SECONDS = 0.2
# A job of which nothing came for so long has lost something. TensorFlow tries a
# dispatcher that was gone again within 10 seconds.
_LOST_SECONDS = 15.0
_WARN_SECONDS = 10.0
# Blocks of 3.5 MB that wait here.
_NUM_WAITING = 16

_logger = logging.getLogger(__name__)
_abandoned: list[Iterator] = []


class ServiceError(RuntimeError):
    """A tf.data service failed; the message says how, in a line."""


@dataclasses.dataclass(frozen=True)
class Service:
    """A tf.data service.

    Attributes:
        address: `host:port` of its dispatcher.
        timeout_seconds: How long it may be silent.
    """

    address: str
    timeout_seconds: float = 300.0


class ServedPatches:
    """Patches in shards that the workers of a tf.data service read.

    Args:
        selected: Which; their paths are those on the hosts of workers too.
        service: By whom.
        num_threads: Of the pipeline here; 0 for TensorFlow's own number.
        shuffle_megabytes: Records in the shuffle buffer of each worker.

    Attributes:
        input: Its name among `choices.INPUTS`.
        selection: As given.
        order: What training follows; two ways of one order give one run.
        plan: Set by `pipeline.open_patches`: which way in, and why.

    Raises:
        ConnectionError: no dispatcher answers.
    """

    input = "stream"
    order = "that of a tf.data service, never the same twice"
    plan = ""

    def __init__(
        self,
        selected: selection.Selection,
        service: Service,
        *,
        num_threads: int = 0,
        shuffle_megabytes: int = 128,
    ) -> None:
        buffers.keep_freed_memory()
        self.selection = selected
        self._service = service
        self._num_threads = num_threads
        self._shuffle_megabytes = shuffle_megabytes
        service_address.wait_for(service.address, service.timeout_seconds)

    @property
    def num_patches(self) -> int:
        """How many there are."""
        return self.selection.num_patches

    def train_batches(
        self, *, batch_size: int, seed: int, first_step: int, num_steps: int
    ) -> tf.data.Dataset:
        """See `pipeline.train_batches`; to be iterated once.

        Passes begin with the first step. Which patches steps before it saw is
        not known, so the rest of that epoch may repeat some of them.
        """
        passes = _Passes(
            self.selection,
            self._service,
            streamed.shuffle_buffer(self.selection, self._shuffle_megabytes),
            (seed, first_step),
        )
        filler = _Filler(iter(passes), batch_size, num_steps - 1)
        ds = tf.data.Dataset.range(first_step, num_steps)
        ds = ds.map(
            lambda step: batches.from_numpy(
                filler.fill, [step], batch_size, batches.TRAIN_PARTS
            )
        )
        ds = ds.prefetch(1)  # Last: overlaps with the step.
        return batches.limit_threads(ds, self._num_threads)

    def eval_batches(
        self, *, batch_size: int, first_batch: int = 0
    ) -> tf.data.Dataset:
        """See `pipeline.eval_batches`; read here, since their order matters."""
        local = streamed.StreamedPatches(
            self.selection, num_threads=self._num_threads
        )
        return local.eval_batches(
            batch_size=batch_size, first_batch=first_batch
        )

    fill = staticmethod(batches.whole)


class _Filler:
    """Batches, copied from blocks of any size.

    Args:
        blocks: Without an end.
        batch_size: Patches of a batch.
        last_step: After which no more blocks are asked for.
    """

    def __init__(
        self, blocks: Iterator[Block], batch_size: int, last_step: int
    ) -> None:
        self._blocks = blocks
        self._batch_size = batch_size
        self._last_step = last_step
        self._rest: Block | None = None
        self._pool = buffers.pool_of_batches(batch_size)

    def fill(self, step: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns image, label and row of the next batch."""
        image = self._pool.take()
        pixels = image.reshape(self._batch_size, schema.IMAGE_BYTES)
        label, row = np.empty((2, self._batch_size), np.int64)
        filled = 0
        while filled < self._batch_size:
            rows, starts = self._rest or next(self._blocks)
            count = min(len(rows), self._batch_size - filled)
            place = slice(filled, filled + count)
            row[place] = rows[:count]
            pixels[place] = streamed.pixels_of(starts[:count])
            label[place] = streamed.labels_of(starts[:count])
            is_used_up = count == len(rows)
            self._rest = None if is_used_up else (rows[count:], starts[count:])
            filled += count
        if step == self._last_step:
            self._blocks.close()  # The job ends now, not with the process.
        return image, label, row


class _Passes:
    """All patches in blocks, pass after pass, for ever.

    Args:
        selected: Which.
        service: By whom.
        shuffle_buffer: Records that each worker shuffles.
        seeds: Of the order.
    """

    def __init__(
        self,
        selected: selection.Selection,
        service: Service,
        shuffle_buffer: int,
        seeds: Sequence[int],
    ) -> None:
        self._shards = selected.shards
        self._num_patches = selected.num_patches
        self._service = service
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
        num_missing, lost_seconds = self._num_patches, _LOST_SECONDS
        while True:
            shards = [
                shard
                for shard in self._shards
                if is_missing[shard.first_row : _end_row(shard)].any()
            ]
            for rows, starts in self._read_job(shards, draw, lost_seconds):
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
        shards: Sequence[selection.ShardFile],
        draw: np.random.Generator,
        lost_seconds: float,
    ) -> Iterator[Block]:
        """Yields what a job gives, until its end or until something is lost."""
        listener = _Listener(self._service, lost_seconds)
        # Without a dispatcher TensorFlow would wait for ever in the next line.
        while not service_address.answers(self._service.address):
            listener.tick()
            time.sleep(_TICK_SECONDS)
        elements = self._elements(shards, draw)
        try:
            for kind, rows, starts in elements:
                if kind == _END:
                    return
                if kind == _PATCHES:
                    yield rows, starts
                    listener.hear()  # Not before: the step may have taken long.
                elif listener.tick():
                    return
        except ServiceError:
            # A dispatcher that hangs would let nobody free the job.
            _abandoned.append(elements)
            raise

    def _elements(
        self, shards: Sequence[selection.ShardFile], draw: np.random.Generator
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
            yield from _with_ticks(ds).as_numpy_iterator()
        except tf.errors.OpError as error:
            raise ServiceError(
                f"tf.data service at {self._service.address}:"
                f" {' '.join(str(error.message).split())[:400]}. Its workers"
                " must find the records where this host does."
            ) from error

    def _read_shuffled(
        self, shards: Sequence[selection.ShardFile], draw: np.random.Generator
    ) -> tf.data.Dataset:
        """Returns what workers do; they have no Python."""
        order = draw.permutation(len(shards))
        ds = tf.data.Dataset.from_tensor_slices(
            (
                [_path_everywhere(shards[place].path) for place in order],
                tf.constant([shards[p].first_row for p in order], tf.int64),
            )
        )
        num_open = min(streamed.NUM_OPEN_FILES, len(shards))
        ds = ds.interleave(
            streamed.read_blocks,
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
        shards: Sequence[selection.ShardFile],
        lost_seconds: float,
    ) -> None:
        """Says that patches are asked for again, if that may help.

        Raises:
            ServiceError: they were asked for often enough.
        """
        told = (
            f"tf.data service at {self._service.address}: {num_missing:,} of"
            f" {self._num_patches:,} patches did not come"
        )
        if lost_seconds > self._service.timeout_seconds:
            raise ServiceError(
                f"{told}, as often as they were asked for, expected all. Check"
                f" that {shards[0].path} is the same file on every host, and the"
                " logs of its workers."
            )
        _logger.warning(
            "%s; a server has died or ended. They are asked for again.", told
        )


class _Listener:
    """Tells apart a service that is slow, one that lost something, and none.

    Args:
        service: To which it listens.
        lost_seconds: After so long, what has not come is lost.
    """

    def __init__(self, service: Service, lost_seconds: float) -> None:
        self._service = service
        self._lost_seconds = lost_seconds
        self._has_begun = self._is_told = False
        # Since when nothing has come, and since when the dispatcher answers.
        self._silent = self._answering = time.monotonic()

    def hear(self) -> None:
        """Notes that patches came."""
        self._has_begun, self._is_told = True, False
        self._silent = time.monotonic()

    def tick(self) -> bool:
        """Returns whether what has not come so far has to be asked for again.

        Raises:
            ServiceError: nothing came for longer than the service may be silent.
        """
        if calls.is_ending():
            raise ServiceError("the process ends.")
        silent_seconds = time.monotonic() - self._silent
        if silent_seconds < 2 * _TICK_SECONDS:
            return False
        is_answering = service_address.answers(self._service.address)
        if not is_answering:
            self._answering = time.monotonic()
        self._tell(silent_seconds, is_answering)
        since = max(self._silent, self._answering)
        is_lost = time.monotonic() - since > self._lost_seconds
        return self._has_begun and is_lost

    def _tell(self, silent_seconds: float, is_answering: bool) -> None:
        """Warns of a silence, and raises at its longest."""
        what = "its dispatcher does not answer"
        if is_answering:
            what = "its dispatcher answers, but no worker sends patches"
        told = f"tf.data service at {self._service.address}: {what}"
        if silent_seconds > self._service.timeout_seconds:
            raise ServiceError(
                f"{told}, for {self._service.timeout_seconds:g} s. Start its"
                " servers again (pcam data_service); the same command then"
                " resumes the run."
            )
        if silent_seconds > _WARN_SECONDS and not self._is_told:
            _logger.warning("%s; waiting.", told)
            self._is_told = True


def _with_ticks(ds: tf.data.Dataset) -> tf.data.Dataset:
    """Returns (kind, *element) of a dataset, and a tick now and then.

    If a worker dies, the end of its job never comes (TensorFlow 2.21), and
    nothing from outside ends the waiting for the next element.
    """
    nothing = tuple(
        tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in ds.element_spec
    )
    clock = tf.raw_ops.SleepDataset(
        input_dataset=tf.data.experimental.to_variant(
            tf.data.Dataset.from_tensors(np.int64(0)).repeat()
        ),
        sleep_microseconds=int(_TICK_SECONDS * 1e6),
        output_types=[tf.int64],
        output_shapes=[tf.TensorShape([])],
    )
    clock = tf.data.experimental.from_variant(
        clock, tf.TensorSpec([], tf.int64)
    )

    def mark(kind: int, element: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        return (tf.constant(kind), *element)

    job = ds.map(lambda *element: mark(_PATCHES, element))
    end = tf.data.Dataset.from_tensors(mark(_END, nothing))
    ticks = clock.map(lambda _: mark(_TICK, nothing))

    def choose(number: tf.Tensor) -> tf.data.Dataset:
        first = tf.data.Dataset.range(1 - number)
        second = tf.data.Dataset.range(number)
        return first.flat_map(lambda _: job.concatenate(end)).concatenate(
            second.flat_map(lambda _: ticks)
        )

    ds = tf.data.Dataset.range(2)
    ds = ds.interleave(
        choose, cycle_length=2, num_parallel_calls=2, deterministic=False
    )
    return batches.limit_threads(ds, 0)


def _end_row(shard: selection.ShardFile) -> int:
    return shard.first_row + shard.num_records


def _path_everywhere(path: str) -> str:
    return path if files.is_remote(path) else os.path.abspath(path)
