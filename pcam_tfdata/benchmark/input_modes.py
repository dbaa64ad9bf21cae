"""How fast batches come, by each way in, beside plain ways and limits."""

from collections.abc import Iterator

import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.benchmark import (
    configuration,
    contender,
    feeds,
    limits,
    machine,
    measure,
    results,
)
from pcam_tfdata.distribution import strategy

READ_ONLY = "TFRecordDataset, read only"
PARSE_SINGLE = "TFRecordDataset.map(parse_single_example)"
_PLAN = contender.Plan()


def run(options: configuration.BenchmarkOptions) -> results.Report:
    """Times the ways in."""
    data = configuration.find_data(options)
    # The limit's, and without a GPU those of `device` and what it reads.
    limits.check_memory(data, num_copies=3)
    plan = options.plan(_PLAN)
    outcomes = measure.measure(list_contenders(data), plan)
    return results.build(
        machine.describe() | {"gpus": machine.list_gpus()},
        {"what": options.what} | data.parameters(),
        plan,
        results.summarize(outcomes, limits.GATHER),
    )


def list_contenders(
    data: configuration.Data,
) -> list[contender.Contender]:
    """Returns the limits, each way in, and the plain ways of tf.data."""
    everything = {"data": data}
    return [
        contender.Contender(limits.GATHER, limits.gather, everything),
        contender.Contender(
            "memcpy", limits.copy, {"batch_size": data.batch_size}
        ),
        *list_own(data),
        contender.Contender(READ_ONLY, read_only, everything),
        contender.Contender(PARSE_SINGLE, parse_single, everything),
    ]


def list_own(data: configuration.Data) -> list[contender.Contender]:
    """Returns each way in of the project's own."""
    everything = {"data": data}
    own = [
        contender.Contender("mmap", draw_train, everything | {"input": "mmap"}),
        contender.Contender(
            "mmap, first epoch with CRCs", draw_first_epochs, everything
        ),
        contender.Contender(
            "stream", draw_train, everything | {"input": "stream"}
        ),
        contender.Contender("device", draw_on_device, everything),
    ]
    if machine.list_gpus():
        own.append(
            contender.Contender("mmap, to the GPU", draw_to_device, everything)
        )
    return own


def draw_train(data: configuration.Data, input: str) -> Iterator[int]:
    """Takes shuffled training batches by a way in, in main memory."""
    feeds.hide_gpus()
    ds = feeds.train_batches(data, feeds.open_patches(data, input))
    return feeds.draw(ds, data.batch_size)


def draw_first_epochs(data: configuration.Data) -> Iterator[int]:
    """Opens the records anew for each epoch, so that it is always the first."""
    feeds.hide_gpus()
    num_steps = data.num_patches // data.batch_size
    while True:
        patches = feeds.open_patches(data, check_crc="first_epoch")
        ds = feeds.train_batches(data, patches, num_steps)
        yield from feeds.draw(ds, data.batch_size)


def draw_on_device(data: configuration.Data) -> Iterator[int]:
    """Gathers batches from the memory of the first GPU, or else of the CPU."""
    distribution = strategy.make_strategy()
    (device,) = strategy.list_devices(distribution)
    patches = feeds.open_patches(data, "device", devices=[device])
    fill = tf.function(patches.fill)
    for batch in feeds.train_batches(data, patches):
        with tf.device(device):
            image = fill(batch)["image"]
        _wait_for(image)
        yield data.batch_size


def draw_to_device(data: configuration.Data) -> Iterator[int]:
    """Gathers batches from the shards, and brings them to the first GPU."""
    distribution = strategy.make_strategy()
    ds = feeds.train_batches(data, feeds.open_patches(data))
    for batch in distribution.experimental_distribute_dataset(ds):
        _wait_for(batch["image"])
        yield data.batch_size


def _wait_for(image: tf.Tensor) -> None:
    # An operation on a GPU is only asked for; a number of its result waits.
    image[-1, -1, -1, -1].numpy()


def read_only(data: configuration.Data) -> Iterator[int]:
    """Reads serialised Examples in the order of the files."""
    feeds.hide_gpus()
    ds = tf.data.TFRecordDataset(feeds.list_shards(data))
    ds = ds.repeat().batch(data.batch_size)
    return feeds.draw(ds, data.batch_size)


def parse_single(data: configuration.Data) -> Iterator[int]:
    """Parses Examples one by one, in the order of the files, and batches."""
    feeds.hide_gpus()
    ds = tf.data.TFRecordDataset(feeds.list_shards(data)).repeat()
    ds = ds.map(parse_example, num_parallel_calls=tf.data.AUTOTUNE)
    ds = ds.batch(data.batch_size).prefetch(tf.data.AUTOTUNE)
    return feeds.draw(ds, data.batch_size)


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
