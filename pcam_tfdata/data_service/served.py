"""`stream` by a tf.data service: workers on other hosts read the shards.

Workers read, check CRCs and shuffle; blocks of records come over the network.
Who is first is chance, so the order is never the same twice, and a run that goes
on begins a new epoch. An epoch is a job of the service, whose shards the
dispatcher deals out one by one (TensorFlow's dynamic sharding): each patch comes
at most once, and what a worker held when it died is left out.
"""

import contextlib
import dataclasses
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from pcam_tfdata.data_service import service_address
from pcam_tfdata.pipeline import (
    batch_format,
    patch_order,
    patch_source,
    process_exit,
    stream_mode,
)
from pcam_tfdata.records import manifest
from pcam_tfdata.system import faults, files

_NUM_WAITING = 16  # Blocks, of 3.5 MB each, on their way.
_POLL_SECONDS = 0.2

_service = tf.data.experimental.service
_logger = logging.getLogger(__name__)


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
    errors = (*stream_mode.StreamedPatches.errors, ConnectionError)

    def __init__(
        self, source: patch_source.Source, address: str, timeout_seconds: float
    ) -> None:
        options = source.options
        if options.input not in ("auto", "stream") or options.cache != "none":
            raise ValueError(
                f"--data_service: found it with --input={options.input} and"
                f" --cache={options.cache}, expected stream and none."
            )
        self._address = service_address.parse(address, "--data_service")
        self._timeout_seconds = timeout_seconds
        records = source.records
        stream_mode.refuse_unreadable(records)
        if not files.is_remote(records.path):
            # Workers have working folders of their own.
            path = os.path.abspath(records.path)
            records = dataclasses.replace(records, path=path)
        super().__init__(source, records.select_patches(source.splits))
        self._manifest_path = os.path.join(records.path, manifest.MANIFEST_FILE)
        service_address.wait_for(self._address, timeout_seconds)
        self.plan = (
            f"stream, by the tf.data service at {self._address}; its order is"
            " never the same twice"
        )

    def _read_steps(self, steps: patch_order.Steps) -> tf.data.Dataset:
        size, parts = steps.batch_size, batch_format.TRAIN_PARTS
        num_steps = max(0, steps.num_steps - steps.first_step)
        blocks = self._read_epochs(num_steps * size)
        next_block = process_exit.counted(blocks.__next__)
        types = tf.int64, tf.uint8
        ds = tf.data.Dataset.counter()
        ds = ds.map(lambda _: tuple(tf.numpy_function(next_block, [], types)))
        ds = ds.rebatch(size, drop_remainder=True).take(num_steps)
        return ds.map(
            lambda row, start: stream_mode.to_batch(row, start, size, parts)
        )

    def _read_epochs(
        self, num_wanted: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields blocks, epoch after epoch, until so many patches have come."""
        while num_wanted > 0:
            blocks = self._read_epoch()
            for rows, starts in blocks:
                num_wanted -= len(rows)
                if num_wanted <= 0:
                    # TensorFlow keeps this, and comes no more.
                    blocks.close()
                yield rows, starts

    def _read_epoch(
        self,
    ) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
        """Yields rows and starts of Examples, in blocks, until no more come."""
        num_missing, reason = self.num_patches, "a worker has fewer"
        advice = "Check that records are the same on every host."
        blocks = _read_ahead(self._distribute, self._timeout_seconds)
        try:
            for rows, starts in blocks:
                num_missing -= len(rows)
                yield rows, starts
                # A dead worker keeps its jobs from ending.
                if num_missing <= 0:
                    return
        except queue.Empty:
            self._require_dispatcher()
            reason = f"a worker gave none for {self._timeout_seconds:g} s"
            advice = (
                "Check that workers run, and are reached by the address that"
                " they gave (pcam data_service --worker_address)."
            )
        except tf.errors.OpError as error:
            message = faults.one_line(error.message, 1000)
            raise ConnectionError(
                f"tf.data service at {self._address}: {message}. Its workers"
                " must find the records where this host does."
            ) from error
        finally:
            blocks.close()
        loss = (
            f"tf.data service at {self._address}: {num_missing:,} of"
            f" {self.num_patches:,} patches did not come: {reason}."
        )
        if num_missing == self.num_patches:
            raise ConnectionError(f"{loss} {advice}")
        _logger.warning("%s The epoch ends without them.", loss)

    def _require_dispatcher(self) -> None:
        """Raises `ConnectionError` if the dispatcher does not answer."""
        try:
            service_address.wait_for(self._address, 0)
        except ConnectionError as error:
            raise ConnectionError(
                f"tf.data service at {self._address}: its dispatcher does not"
                f" answer, for {self._timeout_seconds:g} s. Start its servers"
                " again (pcam data_service); the same command then resumes the"
                " run."
            ) from error

    def _distribute(self) -> tf.data.Dataset:
        """Returns the blocks of an epoch, as workers read them.

        All but the last stage is what workers do; they have no Python.
        """
        content = tf.io.read_file(self._manifest_path)

        def read_blocks(*shard: tf.Tensor) -> tf.data.Dataset:
            # A worker knows a path, and may find other records there.
            same = tf.io.read_file(self._manifest_path) == content
            tf.debugging.Assert(same, [f"found another {self._manifest_path}"])
            return stream_mode.read_blocks(*shard)

        shards = list(self.selection.shards)
        np.random.default_rng().shuffle(shards)  # They are dealt in order.
        ds = stream_mode.list_shards(shards)
        ds = ds.interleave(
            read_blocks,
            cycle_length=stream_mode.NUM_OPEN_FILES,
            num_parallel_calls=stream_mode.NUM_OPEN_FILES,
            deterministic=False,
        )
        ds = ds.unbatch()
        ds = ds.shuffle(stream_mode.count_shuffled(self))
        ds = ds.batch(stream_mode.BLOCK)
        ds = ds.map(stream_mode.decode_starts)
        ds = batch_format.limit_threads(ds.prefetch(1), 0)
        return ds.apply(
            _service.distribute(
                _service.ShardingPolicy.DYNAMIC,
                f"grpc://{self._address}",
                max_outstanding_requests=_NUM_WAITING,
                compression=None,  # Pixels of tissue do not shrink.
            )
        )


def _read_ahead(
    make_dataset: Callable[[], tf.data.Dataset], timeout_seconds: float
) -> Generator[tuple, None, None]:
    """Yields the elements of a dataset, which a thread reads, as NumPy arrays.

    Closed, it reads no more.

    If a worker of a tf.data service dies, the end of its job may never come
    (TensorFlow 2.21), and nothing from outside ends TensorFlow's own waiting.

    Args:
        make_dataset: Makes it, in the thread: that may wait for a server too.
        timeout_seconds: How long no element may come.

    Raises:
        queue.Empty: none came for so long, or the process ends.
        tf.errors.OpError: it cannot be read.
    """
    elements: queue.Queue[Any] = queue.Queue(1)
    closed = threading.Event()
    # While Python ends, nobody may come back from TensorFlow to it.
    start = process_exit.counted(lambda: make_dataset().as_numpy_iterator())
    proceed = process_exit.counted(next)

    def read() -> None:
        try:
            iterator, element = start(), True
            while element is not None and not closed.is_set():
                element = proceed(iterator, None)
                elements.put(element)
        except Exception as error:
            elements.put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (element := _take(elements, timeout_seconds)) is not None:
            if isinstance(element, Exception):
                raise element
            yield element
    finally:
        closed.set()
        with contextlib.suppress(queue.Empty):  # The thread may wait for room.
            elements.get_nowait()


def _take(elements: queue.Queue[Any], timeout_seconds: float) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            return elements.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if time.monotonic() >= deadline or process_exit.is_ending():
                raise
