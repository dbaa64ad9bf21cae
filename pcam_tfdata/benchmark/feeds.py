"""The batches of the records, as every benchmark takes them."""

from collections.abc import Iterator, Sequence

import tensorflow as tf

from pcam_tfdata.benchmark import configuration
from pcam_tfdata.pipeline import batch_format, patch_source
from pcam_tfdata.records import records_folder

_ENDLESS = 1 << 40


def open_patches(
    data: configuration.Data,
    input: str = "mmap",
    *,
    check_crc: str = "never",
    devices: Sequence[str] = (),
) -> patch_source.Patches:
    """Returns the patches by a way in.

    CRCs are not looked at unless asked for: `mmap` looks at each once, so this
    is how it goes on after the first epoch.
    """
    source = patch_source.Source(
        records_folder.open_folder(data.records_dir),
        data.splits,
        input,
        check_crc=check_crc,
    )
    return patch_source.open_patches(source, devices)


def train_batches(
    data: configuration.Data,
    patches: patch_source.Patches,
    num_steps: int = _ENDLESS,
) -> tf.data.Dataset:
    """Returns shuffled training batches, by default without an end."""
    return patches.train_batches(
        batch_size=data.batch_size, seed=0, first_step=0, num_steps=num_steps
    )


def eval_batches(data: configuration.Data) -> tf.data.Dataset:
    """Returns every patch once, in order; each CRC is looked at.

    A prediction reads its patches once, so it pays for every one.
    """
    patches = open_patches(data, check_crc="first_epoch")
    return patches.eval_batches(batch_size=data.batch_size)


def repeat(batch: object) -> tf.data.Dataset:
    """Returns one batch over and over, as cheaply as TensorFlow can."""
    ds = tf.data.Dataset.from_tensors(batch).repeat()
    return batch_format.limit_threads(ds, 0)


def list_shards(data: configuration.Data) -> list[str]:
    """Returns the paths of the shards, in order."""
    records = records_folder.open_folder(data.records_dir)
    return [shard.path for shard in records.list_shards(data.splits)]


def draw(ds: tf.data.Dataset, batch_size: int) -> Iterator[int]:
    """Takes a batch at each `next`, and gives its size."""
    for _ in ds:
        yield batch_size


def hide_gpus() -> None:
    """Keeps this process off the GPUs: input does not need their memory."""
    tf.config.set_visible_devices([], "GPU")
