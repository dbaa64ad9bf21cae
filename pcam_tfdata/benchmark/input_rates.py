"""How fast batches come in each input mode, beside plain ways of tf.data."""

import gc
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.benchmark import configuration
from pcam_tfdata.data_service import served
from pcam_tfdata.distribution import replicas
from pcam_tfdata.pipeline import input_choice, patch_source
from pcam_tfdata.records import records_folder

_ENDLESS = 1 << 40
_FIRST_OPENINGS = 2  # They also trace and map what later ones find done.
_TIMEOUT_SECONDS = 300.0


def open_source(
    options: configuration.Options, mode: str = "mmap", check_crc: str = "never"
) -> patch_source.Source:
    """Returns the patches of the options, to be opened.

    CRCs are not looked at unless asked for: `mmap` looks at each once, so this
    is how it goes on after the first epoch.
    """
    records = records_folder.open_folder(options.records_dir)
    how = patch_source.InputOptions(input=mode, check_crc=check_crc)
    return patch_source.Source(records, options.splits, how)


def train_batches(
    options: configuration.Options,
    patches: patch_source.Patches | None = None,
    num_steps: int = _ENDLESS,
) -> tf.data.Dataset:
    """Returns shuffled training batches, by default of `mmap` without an end."""
    patches = patches or input_choice.open_patches(open_source(options))
    return patches.train_batches(
        batch_size=options.batch_size, seed=0, first_step=0, num_steps=num_steps
    )


def hide_gpus() -> None:
    """Keeps this process off the GPUs: input does not need their memory."""
    tf.config.set_visible_devices([], "GPU")


def draw(options: configuration.Options, mode: str) -> Iterator[int]:
    """Takes shuffled training batches of an input mode, in main memory."""
    hide_gpus()
    patches = input_choice.open_patches(open_source(options, mode))
    return _count(train_batches(options, patches), options)


def draw_first_epochs(options: configuration.Options) -> Iterator[int]:
    """Opens the records anew for each epoch, so that it is always the first."""
    hide_gpus()
    while True:
        source = open_source(options, check_crc="first_epoch")
        patches = input_choice.open_patches(source)
        num_steps = patches.num_patches // options.batch_size
        yield from _count(train_batches(options, patches, num_steps), options)


def draw_on_device(options: configuration.Options) -> Iterator[int]:
    """Gathers batches from the memory of the first GPU, or else of the CPU."""
    (device,) = replicas.list_devices(replicas.make_strategy())
    source = open_source(options, "device")
    patches = input_choice.open_patches(source, [device])
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


def draw_served(
    options: configuration.Options, num_workers: int
) -> Iterator[int]:
    """Takes training batches from a service of as many workers, all here."""
    hide_gpus()
    work_dir = os.path.join(options.scratch_dir, f"{num_workers}")
    dispatcher, port = _start_server(
        "--role=dispatcher", f"--work_dir={work_dir}"
    )
    address = f"127.0.0.1:{port}"
    servers = [dispatcher]
    for _ in range(num_workers):
        server, _ = _start_server("--role=worker", f"--dispatcher={address}")
        servers.append(server)
    source = open_source(options, "stream")
    patches = served.ServedPatches(source, address, _TIMEOUT_SECONDS)
    yield from _count(train_batches(options, patches), options)


def read_examples(options: configuration.Options) -> tf.data.TFRecordDataset:
    """Returns serialised Examples in the order of the files."""
    paths = [shard.path for shard in options.select_patches().shards]
    return tf.data.TFRecordDataset(paths)


def read_only(options: configuration.Options) -> Iterator[int]:
    """Reads serialised Examples in the order of the files."""
    hide_gpus()
    return _count(example_batches(options), options)


def parse_single(options: configuration.Options) -> Iterator[int]:
    """Parses Examples one by one, in the order of the files, and batches."""
    hide_gpus()
    ds = read_examples(options).repeat()
    ds = ds.map(parse_example, num_parallel_calls=tf.data.AUTOTUNE)
    ds = ds.batch(options.batch_size).prefetch(tf.data.AUTOTUNE)
    return _count(ds, options)


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


def example_batches(options: configuration.Options) -> tf.data.Dataset:
    """Returns batches of serialised Examples, without an end."""
    return read_examples(options).repeat().batch(options.batch_size)


def open_anew(
    options: configuration.Options,
    open_batches: Callable[[configuration.Options], tf.data.Dataset],
) -> Iterator[int]:
    """Opens a dataset and reads one batch at every other `next`; gives 1.

    In between it clears up, and gives 0.
    """
    hide_gpus()
    for _ in range(_FIRST_OPENINGS):
        next(iter(open_batches(options)))
    while True:
        gc.collect()  # Nothing of the last dataset goes on.
        yield 0
        next(iter(open_batches(options)))
        yield 1


def _count(batches: Iterable, options: configuration.Options) -> Iterator[int]:
    for _ in batches:
        yield options.batch_size


def _wait_for(image: tf.Tensor) -> None:
    # An operation on a GPU is only asked for; a number of its result waits.
    image[-1, -1, -1, -1].numpy()


def _start_server(*flags: str) -> tuple[subprocess.Popen, str]:
    """Returns a server that is ready, and its port.

    It ends with the process group of the contender.
    """
    command = [sys.executable, "-m", "pcam_tfdata", "data_service", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline() if process.stderr else ""
    ready = re.search(r" ready on port (\d+)", line)
    if ready is None:
        raise RuntimeError(line.strip())
    return process, ready.group(1)
