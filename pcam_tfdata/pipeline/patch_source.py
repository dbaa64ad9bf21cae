"""Batches of patches from a records folder, as tf.data.

Training is one endless stream of positions. With global batch size B and N
patches, step s holds the positions s*B .. s*B + B - 1; position p is the patch
`permutation of epoch p // N` at `p mod N`. Which patches a step sees follows
from (seed, step) alone, so resuming is a counter. Batches straddle epochs: none
is short and no patch is dropped.

A batch is a dict, and every component has the batch axis:

    image  uint8 [B, 96, 96, 3]
    label  int64 [B], 0 or 1, -1 where unlabelled
    row    int64 [B], row of the sidecar
    mask   bool [B], evaluation only: False for the padding of the last batch

Three ways in give it. `mmap` maps the shards and gathers each batch: the page
cache is its cache. `stream` reads them as TFRecords, for disks and networks that
are slow at random access: it shuffles within a buffer, and its first_step costs
reading up to there. `device` holds all patches on each replica and gathers
there. `mmap` and `device` give the same batches. `auto` is `mmap` for a folder
and `stream` for a URL.

A tf.data service can read for `stream`, on other hosts. Then the order is never
the same twice, and first_step costs nothing.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf

from pcam_tfdata.data_service import served, service_address, timeouts
from pcam_tfdata.pipeline import mapped, planning, resident, streamed
from pcam_tfdata.pipeline.batches import Batch, Portion, fit_batch_size, whole
from pcam_tfdata.pipeline.image_files import ImageFiles
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import files, memory

__all__ = [
    "Batch",
    "ImageFiles",
    "Patches",
    "Portion",
    "Source",
    "damage_named",
    "eval_batches",
    "fit_batch_size",
    "open_patches",
    "train_batches",
    "whole",
]

_MEGABYTE = 1 << 20
Patches = (
    mapped.MappedPatches
    | streamed.StreamedPatches
    | resident.ResidentPatches
    | served.ServedPatches
)


@dataclasses.dataclass(frozen=True)
class Source:
    """The patches of some splits of a records folder, and the way in.

    Attributes:
        records: The folder, opened; for `stream` it may be at a URL such as
            gs://….
        splits: Names, such as ("fold1", "fold2").
        input: One of `choices.INPUTS`.
        input_threads: Of the pipeline; 0 for as many as it can use.
        check_crc: `first_epoch` or `never`, for `mmap` and `device`: when to
            look at the CRC of records. `stream` always does.
        shuffle_megabytes: Of the shuffle buffer of `stream`.
        cache: For `stream`: `none`, `memory`, or the path of a file to make,
            where nothing is yet.
        data_service: Address of the dispatcher of a tf.data service that reads
            training batches for `stream`; None for this process.
        data_service_timeout_seconds: How long it may be silent.
    """

    records: records_folder.RecordsFolder
    splits: Sequence[str]
    input: str = "auto"
    input_threads: int = 0
    check_crc: str = "first_epoch"
    shuffle_megabytes: int = 128
    cache: str = "none"
    data_service: str | None = None
    data_service_timeout_seconds: float = 300.0

    def count_patches(self) -> int:
        """Returns how many patches the splits hold."""
        return self.records.count_patches(self.splits)

    def count_labels(self) -> tuple[int, int]:
        """Returns how many patches have label 0, and how many label 1."""
        return self.records.count_labels(self.splits)


def open_patches(source: Source, devices: Sequence[str] = ()) -> Patches:
    """Returns the patches of a source, ready to be read in batches.

    What comes back has `num_patches`, `train_batches` and `eval_batches`, which
    give datasets, and `fill`, which a replica calls on its part of a batch: for
    `device` it adds the images, else it does nothing; and `plan`, which way in
    was taken and why. Both datasets can begin in the middle: `first_batch` of
    `eval_batches` gives the batches from that one on. With a `portion` they give
    the part of each batch that one of several processes takes.

    Args:
        source: Which patches.
        devices: Of the replicas, for `device`; none for the CPU.

    Raises:
        FileNotFoundError, ValueError: records are not there or damaged, or do
            not fit the way in.
        ConnectionError: no dispatcher of a tf.data service answers.
    """
    _refuse_unreadable(source.records.path)
    if source.data_service:
        return _open_served(source)
    selected = source.records.select_patches(source.splits)
    kind, reason = _plan(source, selected, devices)
    patches = _open_as(kind, source, selected, devices)
    patches.source = source
    patches.plan = f"{kind}, {reason}"
    if kind != "stream" and source.cache != "none":
        patches.plan += "; it needs no --cache"
    return patches


def _refuse_unreadable(records_dir: str) -> None:
    """Refuses a store that fsspec opens, and TensorFlow, which reads, not."""
    scheme = records_dir.partition("://")[0]
    if (
        files.is_remote(records_dir)
        and scheme not in tf.io.gfile.get_registered_schemes()
    ):
        raise ValueError(
            f"{records_dir}: found records in a store, expected a folder on a"
            f" disk: TensorFlow reads no {scheme}:// here. Copy the records to"
            " a disk."
        )


def _open_served(source: Source) -> served.ServedPatches:
    for name, value, expected in (
        ("input", source.input, ("auto", "stream")),
        ("cache", source.cache, ("none",)),
    ):
        if value not in expected:
            raise ValueError(
                f"--{name}={value}: found it with --data_service, expected"
                f" {' or '.join(expected)}: workers read records in order, and"
                " keep none."
            )
    address = service_address.parse(source.data_service, "--data_service")
    patches = served.ServedPatches(
        source.records.select_patches(source.splits),
        timeouts.Service(address, source.data_service_timeout_seconds),
        num_threads=source.input_threads,
        shuffle_megabytes=source.shuffle_megabytes,
    )
    patches.source = source
    patches.plan = (
        f"stream, by the tf.data service at {address}; its order is never the"
        " same twice"
    )
    return patches


def _open_as(
    kind: str,
    source: Source,
    selected: records_folder.Selection,
    devices: Sequence[str],
) -> Patches:
    if kind == "stream":
        return streamed.StreamedPatches(
            selected,
            num_threads=source.input_threads,
            shuffle_megabytes=source.shuffle_megabytes,
            cache=source.cache,
        )
    patches = mapped.MappedPatches(
        selected,
        num_threads=source.input_threads,
        check_crc=source.check_crc == "first_epoch",
    )
    if kind == "mmap":
        return patches
    return resident.ResidentPatches(
        patches, devices or ["/CPU:0"], source.input_threads
    )


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    num_steps: int,
) -> tf.data.Dataset:
    """Returns the batches of steps first_step .. num_steps - 1, shuffled.

    Args:
        source: Which patches.
        batch_size: Patches of a batch, over all replicas.
        seed: Of the order.
        first_step: Where to begin; a restart at k gives the batches from k on.
        num_steps: Where to end, counted from step 0.

    Returns:
        A dataset of batches without `mask`, of static shape.

    Raises:
        FileNotFoundError, ValueError: see `open_patches`.
    """
    patches = open_patches(source)
    ds = patches.train_batches(
        batch_size=batch_size,
        seed=seed,
        first_step=first_step,
        num_steps=num_steps,
    )
    return _whole(ds, patches)


def eval_batches(source: Source, *, batch_size: int) -> tf.data.Dataset:
    """Returns every patch once, in order, the last batch padded and masked.

    Args:
        source: Which patches.
        batch_size: Patches of a batch, over all replicas.

    Raises:
        FileNotFoundError, ValueError: see `open_patches`.
    """
    patches = open_patches(source)
    return _whole(patches.eval_batches(batch_size=batch_size), patches)


@contextlib.contextmanager
def damage_named(*opened: Patches) -> Iterator[None]:
    """Turns TensorFlow's error about what it reads into one that names it.

    Raises:
        DamagedRecordError: which record of which shard, and what is wrong.
        ServiceError: what is wrong with a tf.data service.
    """
    try:
        yield
    except tf.errors.OpError as error:
        message = str(error.message)
        told = re.search(
            rf"{tfrecord.DamagedRecordError.__name__}: (.*)", message
        )
        if told:
            raise tfrecord.DamagedRecordError(told.group(1)) from error
        place = re.search(r"(?:corrupted|truncated) record at (\d+)", message)
        if place:
            for patches in opened:
                _find_damage(patches.selection, int(place.group(1)))
        told = re.search(rf"{timeouts.ServiceError.__name__}: (.*)", message)
        if told:
            raise timeouts.ServiceError(told.group(1)) from error
        raise


def _find_damage(selected: records_folder.Selection, offset: int) -> None:
    """Looks at the record at a byte in each shard: TensorFlow names no file."""
    for shard in selected.shards:
        record = offset // shard.layout.record_bytes
        if record < shard.num_records:
            found = shard.read_record(record)
            tfrecord.check_frame(found, shard.layout, shard.path, record)


def _plan(
    source: Source, selected: records_folder.Selection, devices: Sequence[str]
) -> tuple[str, str]:
    sizes: dict[str, int] = {}
    for shard in selected.shards:
        sizes[shard.split] = sizes.get(shard.split, 0) + shard.num_bytes
    gpus = [name for name in devices if "GPU" in name.upper()]
    return planning.choose(
        planning.Demand(
            input=source.input,
            data_bytes=sum(sizes.values()),
            largest_split_bytes=max(sizes.values()),
            shuffle_bytes=min(
                source.shuffle_megabytes * _MEGABYTE, selected.num_bytes
            ),
            cache_in_memory=source.cache == "memory",
            is_remote=planning.is_remote(selected),
            num_cpu_replicas=0 if gpus else max(1, len(devices)),
        ),
        memory.free_memory(),
    )


def _whole(ds: tf.data.Dataset, patches: Patches) -> tf.data.Dataset:
    if isinstance(patches, resident.ResidentPatches):
        return ds.map(patches.fill).prefetch(1)
    return ds
