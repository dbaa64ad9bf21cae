"""How fast a Kaggle folder becomes records, beside copying it.

A piece of work is a whole job: from `input_dir` to a folder that is not there
before.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from pcam_tfdata.benchmark import configuration
from pcam_tfdata.conversion import convert
from pcam_tfdata.sources import kaggle, listing
from pcam_tfdata.system import faults


def copy_tree(options: configuration.Options) -> Iterator[int]:
    """Copies the folder, as the system does, and what links lead to."""
    command = ["cp", "-rL", options.input_dir, _output_dir(options)]
    return _repeat(options, lambda: subprocess.run(command, check=True))


def convert_tree(
    options: configuration.Options, num_workers: int
) -> Iterator[int]:
    """Converts the folder."""
    job = convert.ConvertOptions(
        options.input_dir, _output_dir(options), num_workers=num_workers
    )
    return _repeat(options, lambda: convert.convert(job))


def write_plainly(options: configuration.Options) -> Iterator[int]:
    """Writes the folder as most people would: Pillow and TFRecordWriter."""
    folders = (options.input_dir, _output_dir(options))
    return _repeat(options, lambda: _write_plainly(*folders))


def count_patches(input_dir: str) -> int:
    """Returns how many patches a folder holds; refuses one with faults."""
    return sum(map(len, _list_splits(input_dir)))


def _repeat(
    options: configuration.Options, job: Callable[[], object]
) -> Iterator[int]:
    """Does a job at every other `next`; clears up in between, and gives 0."""
    num_patches = count_patches(options.input_dir)
    while True:
        shutil.rmtree(_output_dir(options), ignore_errors=True)
        os.sync()  # Nobody pays for the last one's pending writes.
        yield 0
        job()
        yield num_patches


def _output_dir(options: configuration.Options) -> str:
    return os.path.join(options.scratch_dir, "output")


def _write_plainly(input_dir: str, output_dir: str) -> None:
    # The other contenders do without, as conversion does.
    import tensorflow as tf

    os.makedirs(output_dir)
    for patches in _list_splits(input_dir):
        path = os.path.join(output_dir, f"{patches.split}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for row, path in enumerate(listing.list_paths(patches.images)):
                with Image.open(path) as image:
                    pixels = np.asarray(image).tobytes()
                example = tf.train.Example()
                features = example.features.feature
                features["id"].bytes_list.value.append(patches.names[row])
                features["image"].bytes_list.value.append(pixels)
                features["label"].int64_list.value.append(patches.labels[row])
                writer.write(example.SerializeToString())


def _list_splits(input_dir: str) -> list[listing.Listing]:
    options = listing.SourceOptions("kaggle", input_dir)
    splits, bad = kaggle.list_patches(options)
    if bad:
        raise faults.BadInputError(bad)
    return splits
