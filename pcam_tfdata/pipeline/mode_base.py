"""Which patches are wanted, and what the input modes that give them share."""

import abc
import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf

from pcam_tfdata.pipeline import batch_format, buffer_pool
from pcam_tfdata.records import records_folder, tfrecord


@dataclasses.dataclass(frozen=True)
class Source:
    """The patches of some splits of a records folder, and how they are read.

    Attributes:
        records: The folder, opened; for `stream` it may be at a URL such as
            gs://….
        splits: Names, such as ("fold1", "fold2").
        input: Input mode, one of `choices.INPUTS`.
        input_threads: Threads of the pipeline; 0 for as many as it can use.
        check_crc: `first_epoch` or `never`, for `mmap` and `device`: when to
            look at the CRC of records. `stream` always does.
        shuffle_megabytes: Size of the shuffle buffer of `stream`.
        cache: For `stream`: `none`, `memory`, or the path of a file to make,
            where nothing is yet; records are kept from the first epoch on.
    """

    records: records_folder.RecordsFolder
    splits: Sequence[str]
    input: str = "auto"
    input_threads: int = 0
    check_crc: str = "first_epoch"
    shuffle_megabytes: int = 128
    cache: str = "none"

    def count_patches(self) -> int:
        """Returns how many patches the splits hold."""
        return self.records.count_patches(self.splits)

    def count_labels(self) -> tuple[int, int]:
        """Returns how many patches have label 0, and how many label 1."""
        return self.records.count_labels(self.splits)


@dataclasses.dataclass(frozen=True)
class Steps:
    """Training steps whose batches are wanted; see `Patches.train_batches`."""

    batch_size: int
    seed: int
    first_step: int
    num_steps: int
    portion: batch_format.Portion

    @property
    def portion_size(self) -> int:
        """Patches of a batch that this process takes."""
        return self.portion.size(self.batch_size)


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
        ds = self._read_steps(
            Steps(batch_size, seed, first_step, num_steps, portion)
        )
        ds = ds.prefetch(1)  # Last: overlaps with the step.
        return batch_format.limit_threads(ds, self.source.input_threads)

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
        ds = self._read_in_order(batch_size, first_batch, portion)
        return batch_format.limit_threads(
            ds.prefetch(1), self.source.input_threads
        )

    def fill(self, batch: batch_format.Batch) -> batch_format.Batch:
        """Returns a replica's part of a batch with its images."""
        return batch

    @abc.abstractmethod
    def _read_steps(self, steps: Steps) -> tf.data.Dataset: ...

    @abc.abstractmethod
    def _read_in_order(
        self, batch_size: int, first_batch: int, portion: batch_format.Portion
    ) -> tf.data.Dataset: ...


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
        for kind in {kind for patches in opened for kind in patches.errors}:
            if text := re.search(rf"{kind.__name__}: (.*)", message):
                _find_damage(opened, message)
                raise kind(text.group(1)) from error
        _find_damage(opened, message)
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
            tfrecord.check_frame(
                shard.read_record(record), shard.layout, shard.path, record
            )
