"""Patches of a records folder, and the batches that every input mode gives.

A batch is a dict, and every component has the batch axis:

    image  uint8 [B, 96, 96, 3]
    label  int64 [B], 0 or 1, -1 where unlabelled
    row    int64 [B], row of the sidecar
    mask   bool [B], evaluation only: False for the padding of the last batch
"""

import abc
import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf

from pcam_tfdata.pipeline import batch_format, buffer_pool, patch_order
from pcam_tfdata.records import records_folder, tfrecord


@dataclasses.dataclass(frozen=True)
class InputOptions:
    """How patches are read.

    Attributes:
        input: Input mode, one of `choices.INPUTS`.
        input_threads: Threads of the pipeline; 0 for as many as it can use.
        check_crc: One of `choices.CRC_CHECKS`: when `mmap` and `device` look at
            the CRC of records. `stream` always does.
        shuffle_megabytes: Size of the shuffle buffer of `stream`.
        cache: Where `stream` keeps records from the first epoch on: `none`,
            `memory`, or the path of a file to make, where nothing is yet. A
            training run takes `file` for one in its folder.
    """

    input: str = "auto"
    input_threads: int = 0
    check_crc: str = "first_epoch"
    shuffle_megabytes: int = 128
    cache: str = "none"


@dataclasses.dataclass(frozen=True)
class Source:
    """The patches of some splits of a records folder, and how they are read.

    Attributes:
        records: The folder, opened; for `stream` it may be at a URL such as
            gs://….
        splits: Names, such as ("fold1", "fold2").
        options: How they are read.
    """

    records: records_folder.RecordsFolder
    splits: Sequence[str]
    options: InputOptions = InputOptions()

    def count_labels(self) -> tuple[int, int]:
        """Returns how many patches have label 0, and how many label 1."""
        return self.records.count_labels(self.splits)


class Patches(abc.ABC):
    """Patches of a source, ready to be read in batches by one input mode.

    Args:
        source: What was asked for.
        selection: The shards of it.

    Attributes:
        input: Name of the input mode, among `choices.INPUTS`.
        order: What order training follows; two input modes of one order give
            one run.
        errors: Errors of the functions in its datasets, for `damage_named`.
        source: As given.
        selection: As given.
        plan: Which input mode was taken and why, once that is known.
    """

    input: str
    order: str
    errors: tuple[type[Exception], ...] = (tfrecord.DamagedRecordError,)

    def __init__(
        self, source: Source, selection: records_folder.Selection
    ) -> None:
        buffer_pool.keep_freed_memory()
        self.source = source
        self.selection = selection
        self.plan = ""

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
        portion: batch_format.Portion = batch_format.WHOLE,
    ) -> tf.data.Dataset:
        """Returns the batches of steps first_step .. num_steps - 1, shuffled.

        Args:
            batch_size: Patches of a batch, over all replicas and processes.
            seed: Decides the order.
            first_step: Where to begin; a restart at k gives the batches from k
                on.
            num_steps: Where to end, counted from step 0.
            portion: What this process takes of each batch.

        Returns:
            A dataset of batches without `mask`, of static shape.
        """
        steps = patch_order.Steps(
            batch_size, seed, first_step, num_steps, portion
        )
        return self._finish(self._read_steps(steps))

    def eval_batches(
        self,
        *,
        batch_size: int,
        first_batch: int = 0,
        portion: batch_format.Portion = batch_format.WHOLE,
    ) -> tf.data.Dataset:
        """Returns every patch once, in order, the last batch padded and masked.

        Args:
            batch_size: Patches of a batch, over all replicas and processes.
            first_batch: Gives the batches from that one on.
            portion: What this process takes of each batch.
        """
        return self._finish(
            self._read_in_order(batch_size, first_batch, portion)
        )

    def fill(self, batch: batch_format.Batch) -> batch_format.Batch:
        """Returns a replica's part of a batch with its images."""
        return batch

    @abc.abstractmethod
    def _read_steps(self, steps: patch_order.Steps) -> tf.data.Dataset: ...

    @abc.abstractmethod
    def _read_in_order(
        self, batch_size: int, first_batch: int, portion: batch_format.Portion
    ) -> tf.data.Dataset: ...

    def _finish(self, ds: tf.data.Dataset) -> tf.data.Dataset:
        ds = ds.prefetch(1)  # Last: overlaps with the step.
        num_threads = self.source.options.input_threads
        return batch_format.limit_threads(ds, num_threads)


@contextlib.contextmanager
def damage_named(*opened: Patches) -> Iterator[None]:
    """Turns TensorFlow's error about what it reads into one that names it.

    Raises:
        DamagedRecordError: which record of which shard, and what is wrong.
        Exception: another one of `Patches.errors`.
    """
    try:
        yield
    except tf.errors.OpError as error:
        message = str(error.message)
        _find_damage(opened, message)
        for kind in {kind for patches in opened for kind in patches.errors}:
            if text := re.search(rf"{kind.__name__}: (.*)", message):
                raise kind(text.group(1)) from error
        raise


def _find_damage(opened: Sequence[Patches], message: str) -> None:
    """Looks at a record in each shard: TensorFlow names its byte, and no file.

    Raises:
        DamagedRecordError: it is damaged in one of them.
    """
    offset = re.search(r"(?:corrupted|truncated) record at (\d+)", message)
    if offset is None:
        return
    for shard in (s for patches in opened for s in patches.selection.shards):
        record = int(offset.group(1)) // shard.layout.record_bytes
        if record < shard.num_records:
            shard.check_record(record, shard.read_record(record))
