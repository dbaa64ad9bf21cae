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

Two ways in give it. `mmap` maps the shards and gathers each batch: the page
cache is its cache. `stream` reads them as TFRecords, for disks that are slow at
random access: it shuffles within a buffer, and its first_step costs reading up
to there.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata import choices, faults, manifest, records, schema, tiff

_SHUFFLE_STREAM = 1  # Keeps the order apart from other uses of the seed.
# The public tf.random.experimental.index_shuffle has 4 rounds, and its epochs
# correlate; at 8 they do not.
_SHUFFLE_ROUNDS = 8
_STREAM_CYCLE = 4
_STREAM_BUFFER = 16_384  # Patches: 450 MB.
_READ_BYTES = 1 << 20

Batch = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Source:
    """The patches of some splits of a records folder, in order.

    Attributes:
        records_dir: The folder.
        splits: Names, such as ("fold1", "fold2").
        input: `mmap` or `stream`.
    """

    records_dir: str
    splits: Sequence[str]
    input: str = "mmap"

    def count_patches(self) -> int:
        """Returns how many patches the splits hold."""
        content = manifest.read(self.records_dir)
        splits = content.select(self.splits)
        return sum(split.num_records for split in splits)


def check(source: Source) -> None:
    """Looks whether the shards are there, and of the size they should be.

    Raises:
        FileNotFoundError, ValueError: one is not.
    """
    _open(source)


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
        FileNotFoundError, ValueError: the records are not there or damaged.
    """
    shards = _open(source)
    if source.input == "stream":
        ds = _read_shuffled(shards, seed)
        ds = ds.batch(batch_size, drop_remainder=True)
        ds = ds.skip(first_step).take(num_steps - first_step)
        ds = ds.map(_parse, num_parallel_calls=tf.data.AUTOTUNE)
        return ds.prefetch(tf.data.AUTOTUNE)
    order = _Order(shards.num_patches, batch_size, seed)
    ds = tf.data.Dataset.range(first_step, num_steps)
    ds = ds.map(order.patches_of_step, num_parallel_calls=tf.data.AUTOTUNE)
    ds = ds.map(shards.gather_batch, num_parallel_calls=tf.data.AUTOTUNE)
    return ds.prefetch(tf.data.AUTOTUNE)  # Last: overlaps with the step.


def eval_batches(source: Source, *, batch_size: int) -> tf.data.Dataset:
    """Returns every patch once, in order, the last batch padded and masked.

    Args:
        source: Which patches.
        batch_size: Patches of a batch, over all replicas.

    Raises:
        FileNotFoundError, ValueError: the records are not there or damaged.
    """
    shards = _open(source)
    if source.input != "stream":
        return _gather_in_order(
            shards.gather_batch, shards.num_patches, batch_size
        )
    ds = _read_in_order(shards)
    ds = ds.batch(batch_size)
    ds = ds.map(_parse, num_parallel_calls=tf.data.AUTOTUNE)
    ds = ds.map(lambda batch: pad_batch(batch, batch_size))
    return ds.prefetch(tf.data.AUTOTUNE)


class ImageFiles:
    """Image files as patches, for prediction without records.

    Files that cannot be used give a black patch and a fault.

    Args:
        paths: TIFFs, or whatever `tiff.decode` takes.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._faults: dict[int, faults.Fault] = {}

    @property
    def faults(self) -> list[faults.Fault]:
        """What was wrong with the files read so far, in their order."""
        return [self._faults[place] for place in sorted(self._faults)]

    def eval_batches(self, *, batch_size: int) -> tf.data.Dataset:
        """Returns every file once, as `eval_batches`; `row` is its place."""
        return _gather_in_order(
            self._gather_batch, len(self._paths), batch_size
        )

    def _gather_batch(self, places: tf.Tensor) -> Batch:
        image = tf.numpy_function(self._read, [places], tf.uint8)
        image = tf.ensure_shape(image, [*places.shape, *schema.IMAGE_SHAPE])
        label = tf.fill(tf.shape(places), tf.constant(-1, tf.int64))
        return {"image": image, "label": label, "row": places}

    def _read(self, places: np.ndarray) -> np.ndarray:
        image = np.zeros((len(places), *schema.IMAGE_SHAPE), np.uint8)
        for number, place in enumerate(places):
            path = self._paths[place]
            try:
                image[number] = tiff.read(path)
            except (OSError, ValueError) as error:
                self._faults[int(place)] = faults.Fault(path, str(error))
        return image


def fit_batch_size(batch_size: int, num_patches: int) -> int:
    """Returns a size for evaluation that does not pad a few patches to many."""
    return max(1, min(batch_size, num_patches))


def _gather_in_order(
    gather_batch: Callable[[tf.Tensor], Batch],
    num_patches: int,
    batch_size: int,
) -> tf.data.Dataset:
    def patches_from(start: tf.Tensor) -> tf.Tensor:
        return tf.range(start, tf.minimum(start + batch_size, num_patches))

    ds = tf.data.Dataset.range(0, num_patches, batch_size)
    ds = ds.map(patches_from)
    ds = ds.map(gather_batch, num_parallel_calls=tf.data.AUTOTUNE)
    ds = ds.map(lambda batch: pad_batch(batch, batch_size))
    return ds.prefetch(tf.data.AUTOTUNE)


def pad_batch(batch: Batch, batch_size: int) -> Batch:
    """Returns the batch padded with zeros to `batch_size`, with its `mask`."""
    num_patches = tf.shape(batch["row"])[0]
    num_missing = batch_size - num_patches

    def pad(component: tf.Tensor) -> tf.Tensor:
        paddings = [[0, num_missing]] + [[0, 0]] * (component.shape.rank - 1)
        padded = tf.pad(component, paddings)
        return tf.ensure_shape(padded, [batch_size, *component.shape[1:]])

    mask = tf.range(batch_size) < num_patches
    return {name: pad(part) for name, part in batch.items()} | {"mask": mask}


@dataclasses.dataclass(frozen=True)
class _Order:
    """The stream of positions, as indices of patches."""

    num_patches: int
    batch_size: int
    seed: int

    def patches_of_step(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the patches of a step: int64 [batch_size]."""
        offsets = tf.range(self.batch_size, dtype=tf.int64)
        positions = step * self.batch_size + offsets
        epochs = positions // self.num_patches
        constants = tf.ones_like(epochs)
        return tf.raw_ops.RandomIndexShuffle(
            index=positions % self.num_patches,
            seed=tf.stack(
                [constants * _SHUFFLE_STREAM, constants * self.seed, epochs], 1
            ),
            max_index=tf.constant(self.num_patches - 1, tf.int64),
            rounds=_SHUFFLE_ROUNDS,
        )


@dataclasses.dataclass(frozen=True)
class _Shards:
    """The shards of a source, one after the other.

    Attributes:
        paths: Their files.
        starts: int64 [num_shards + 1]: patches before each shard, and in all.
        first_rows: int64 [num_shards]: sidecar row of the first record.
        layouts: Of each.
        labeled: Whether each has labels; if not, they are -1.
    """

    paths: list[str]
    starts: np.ndarray
    first_rows: np.ndarray
    layouts: list[records.Layout]
    labeled: list[bool]
    mapped: list[np.ndarray]

    @property
    def num_patches(self) -> int:
        return int(self.starts[-1])

    def gather_batch(self, patches: tf.Tensor) -> Batch:
        """Returns the batch of these patches: int64 [batch_size]."""
        image, label, row = tf.numpy_function(
            self._gather, [patches], [tf.uint8, tf.int64, tf.int64]
        )
        size = patches.shape
        return {
            "image": tf.ensure_shape(image, [*size, *schema.IMAGE_SHAPE]),
            "label": tf.ensure_shape(label, size),
            "row": tf.ensure_shape(row, size),
        }

    def _gather(
        self, patches: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image = np.empty((len(patches), schema.IMAGE_BYTES), np.uint8)
        label = np.full(len(patches), schema.UNLABELED, np.int64)
        shard_of_patch = np.searchsorted(self.starts, patches, "right") - 1
        record_of_patch = patches - self.starts[shard_of_patch]
        for shard in np.unique(shard_of_patch):
            places = np.flatnonzero(shard_of_patch == shard)
            layout, mapped = self.layouts[shard], self.mapped[shard]
            rows = record_of_patch[places]
            start = layout.image_offset
            pixels = mapped[:, start : start + schema.IMAGE_BYTES]
            image[places] = pixels[rows]
            if self.labeled[shard]:
                label[places] = mapped[rows, layout.label_offset]
        row = self.first_rows[shard_of_patch] + record_of_patch
        return image.reshape(-1, *schema.IMAGE_SHAPE), label, row


def _open(source: Source) -> _Shards:
    if source.input not in choices.INPUTS:
        raise ValueError(
            f"found input {source.input!r}, expected one of {', '.join(choices.INPUTS)}."
        )
    content = manifest.read(source.records_dir)
    paths, counts, first_rows, layouts, labeled, mapped = [], [], [], [], [], []
    for split in content.select(source.splits):
        row = content.first_row(split.name)
        for shard in split.shards:
            path = os.path.join(source.records_dir, shard.name)
            paths.append(path)
            counts.append(shard.num_records)
            first_rows.append(row)
            layouts.append(split.layout)
            labeled.append(split.labeled)
            # Also for `stream`: a shard of another size is refused here.
            mapped.append(
                records.map_shard(path, shard.num_records, split.layout)
            )
            row += shard.num_records
    starts = np.cumsum([0, *counts], dtype=np.int64)
    rows = np.array(first_rows, np.int64)
    return _Shards(paths, starts, rows, layouts, labeled, mapped)


def _read_shuffled(shards: _Shards, seed: int) -> tf.data.Dataset:
    """Returns (row, serialised Example) for ever, reshuffled each epoch."""
    num_files = len(shards.paths)
    ds = tf.data.Dataset.from_tensor_slices((shards.paths, shards.first_rows))
    ds = ds.shuffle(num_files, seed=seed)
    # Reading in parallel costs more than it gives: BUILD_NOTES.md.
    ds = ds.interleave(_read_file, cycle_length=min(_STREAM_CYCLE, num_files))
    ds = ds.shuffle(min(shards.num_patches, _STREAM_BUFFER), seed=seed)
    return ds.repeat()


def _read_in_order(shards: _Shards) -> tf.data.Dataset:
    ds = tf.data.Dataset.from_tensor_slices((shards.paths, shards.first_rows))
    return ds.flat_map(_read_file)


def _read_file(path: tf.Tensor, first_row: tf.Tensor) -> tf.data.Dataset:
    ds = tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES)
    return ds.enumerate(first_row)


def _parse(row: tf.Tensor, example: tf.Tensor) -> Batch:
    """Returns the batch of serialised Examples: string [batch_size]."""
    features = tf.io.parse_example(
        example,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    image = tf.io.decode_raw(
        features["image"], tf.uint8, fixed_length=schema.IMAGE_BYTES
    )
    size = row.shape[0] or tf.shape(row)[0]
    image = tf.reshape(image, [size, *schema.IMAGE_SHAPE])
    return {"image": image, "label": features["label"], "row": row}
