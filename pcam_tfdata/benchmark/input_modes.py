"""How fast batches come in each input mode, beside plain ways of tf.data."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration
from pcam_tfdata.distribution import replicas
from pcam_tfdata.pipeline import input_choice, patch_source
from pcam_tfdata.records import records_folder

_ENDLESS = 1 << 40
_FIRST_OPENINGS = 2  # They also trace and map what later ones find done.


def open_patches(
    options: configuration.Options,
    *,
    devices: Sequence[str] = (),
    check_crc: str = "never",
    **others: Any,
) -> patch_source.Patches:
    """Returns the patches of the options.

    CRCs are not looked at unless asked for: `mmap` looks at each once, so this
    is how it goes on after the first epoch.

    Args:
        options: Which patches.
        devices: See `input_choice.open_patches`.
        check_crc: When to look at CRCs.
        **others: Other fields of `patch_source.InputOptions`, as `input`.
    """
    records = records_folder.open_folder(options.records_dir)
    return input_choice.open_patches(
        patch_source.Source(
            records,
            options.splits,
            patch_source.InputOptions(check_crc=check_crc, **others),
        ),
        devices,
    )


def train_batches(
    options: configuration.Options,
    patches: patch_source.Patches | None = None,
    num_steps: int = _ENDLESS,
) -> tf.data.Dataset:
    """Returns shuffled training batches, by default of `mmap` without an end."""
    patches = patches or open_patches(options, input="mmap")
    return patches.train_batches(
        batch_size=options.batch_size, seed=0, first_step=0, num_steps=num_steps
    )


def draw(ds: tf.data.Dataset, batch_size: int) -> Iterator[int]:
    """Takes a batch at each `next`, and gives its size."""
    for _ in ds:
        yield batch_size


def hide_gpus() -> None:
    """Keeps this process off the GPUs: input does not need their memory."""
    tf.config.set_visible_devices([], "GPU")


def draw_mmap(options: configuration.Options) -> Iterator[int]:
    """Takes shuffled training batches of `mmap`, in main memory."""
    hide_gpus()
    return draw(train_batches(options), options.batch_size)


def draw_stream(options: configuration.Options) -> Iterator[int]:
    """Takes shuffled training batches of `stream`, in main memory."""
    hide_gpus()
    patches = open_patches(options, input="stream")
    return draw(train_batches(options, patches), options.batch_size)


def draw_first_epochs(options: configuration.Options) -> Iterator[int]:
    """Opens the records anew for each epoch, so that it is always the first."""
    hide_gpus()
    while True:
        patches = open_patches(options, input="mmap", check_crc="first_epoch")
        num_steps = patches.num_patches // options.batch_size
        ds = train_batches(options, patches, num_steps)
        yield from draw(ds, options.batch_size)


def draw_on_device(options: configuration.Options) -> Iterator[int]:
    """Gathers batches from the memory of the first GPU, or else of the CPU."""
    strategy = replicas.make_strategy()
    (device,) = replicas.list_devices(strategy)
    patches = open_patches(options, input="device", devices=[device])
    fill = tf.function(patches.fill)
    for batch in train_batches(options, patches):
        with tf.device(device):
            image = fill(batch)["image"]
        _wait_for(image)
        yield options.batch_size


def draw_to_device(options: configuration.Options) -> Iterator[int]:
    """Gathers batches from the shards, and brings them to the first GPU."""
    strategy = replicas.make_strategy()
    ds = train_batches(options)
    for batch in strategy.experimental_distribute_dataset(ds):
        _wait_for(batch["image"])
        yield options.batch_size


def _wait_for(image: tf.Tensor) -> None:
    # An operation on a GPU is only asked for; a number of its result waits.
    image[-1, -1, -1, -1].numpy()


def read_examples(options: configuration.Options) -> tf.data.TFRecordDataset:
    """Returns serialised Examples in the order of the files."""
    paths = [shard.path for shard in options.select_patches().shards]
    return tf.data.TFRecordDataset(paths)


def read_only(options: configuration.Options) -> Iterator[int]:
    """Reads serialised Examples in the order of the files."""
    hide_gpus()
    ds = read_examples(options).repeat().batch(options.batch_size)
    return draw(ds, options.batch_size)


def parse_single(options: configuration.Options) -> Iterator[int]:
    """Parses Examples one by one, in the order of the files, and batches."""
    hide_gpus()
    ds = read_examples(options).repeat()
    ds = ds.map(parse_example, num_parallel_calls=tf.data.AUTOTUNE)
    ds = ds.batch(options.batch_size).prefetch(tf.data.AUTOTUNE)
    return draw(ds, options.batch_size)


def parse_example(example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns image (uint8 [96, 96, 3]) and label (int64) of one Example."""
    features = tf.io.parse_single_example(
        example,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "label": tf.io.FixedLenFeature([], tf.int64),
        },
    )
    image = tf.io.decode_raw(features["image"], tf.uint8)
    return tf.reshape(image, schema.IMAGE_SHAPE), features["label"]


def open_plainly(options: configuration.Options) -> Iterator[int]:
    """Opens the shards at each `next` and reads one batch; gives 1."""
    return _open_over_and_over(
        lambda: read_examples(options).batch(options.batch_size)
    )


def open_mmap(options: configuration.Options) -> Iterator[int]:
    """Opens `mmap` at each `next` and takes one batch; gives 1."""
    return _open_over_and_over(lambda: train_batches(options))


def _open_over_and_over(
    open_batches: Callable[[], tf.data.Dataset],
) -> Iterator[int]:
    hide_gpus()
    for _ in range(_FIRST_OPENINGS):
        next(iter(open_batches()))

    def pieces() -> Iterator[int]:
        while True:
            next(iter(open_batches()))
            yield 1

    return pieces()
