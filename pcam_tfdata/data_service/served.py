"""`stream` by a tf.data service: workers on other hosts read the shards.

Workers read, check CRCs and shuffle; blocks of records come over the network and
are copied into batches here. Who is first is chance, so the order is not the same
twice.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.data_service import service_address, service_epochs, timeouts
from pcam_tfdata.pipeline import batches, buffers, streamed
from pcam_tfdata.records import records_folder


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
    source = None
    plan = ""

    def __init__(
        self,
        selected: records_folder.Selection,
        service: timeouts.Service,
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
        self,
        *,
        batch_size: int,
        seed: int,
        first_step: int,
        num_steps: int,
        portion: batches.Portion = batches.WHOLE,
    ) -> tf.data.Dataset:
        """See `pipeline.train_batches`; to be iterated once.

        Passes begin with the first step. Which patches steps before it saw is
        not known, so the rest of that epoch may repeat some of them.

        Raises:
            ValueError: a portion is asked for: no two processes see one order.
        """
        if portion != batches.WHOLE:
            raise ValueError(
                f"found {portion}, expected whole batches: a tf.data service"
                " gives each process an order of its own."
            )
        blocks = service_epochs.Passes(
            self.selection,
            self._service,
            streamed.shuffle_buffer(self.selection, self._shuffle_megabytes),
            (seed, first_step),
        )
        filler = _Filler(iter(blocks), batch_size, num_steps - 1)
        ds = tf.data.Dataset.range(first_step, num_steps)
        ds = ds.map(
            lambda step: batches.from_numpy(
                filler.fill, [step], batch_size, batches.TRAIN_PARTS
            )
        )
        ds = ds.prefetch(1)  # Last: overlaps with the step.
        return batches.limit_threads(ds, self._num_threads)

    def eval_batches(
        self,
        *,
        batch_size: int,
        first_batch: int = 0,
        portion: batches.Portion = batches.WHOLE,
    ) -> tf.data.Dataset:
        """See `pipeline.eval_batches`; read here, since their order matters."""
        local = streamed.StreamedPatches(
            self.selection, num_threads=self._num_threads
        )
        return local.eval_batches(
            batch_size=batch_size, first_batch=first_batch, portion=portion
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
        self,
        blocks: Iterator[service_epochs.Block],
        batch_size: int,
        last_step: int,
    ) -> None:
        self._blocks = blocks
        self._batch_size = batch_size
        self._last_step = last_step
        self._rest: service_epochs.Block | None = None
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
