"""How fast a Kaggle folder becomes records, beside copying it.

A piece of work is a whole job: from `input_dir` to a folder that is not there
before.
"""

import functools
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
    command = ["cp", "-rL", options.input_dir]
    return _repeat(
        options, lambda output: subprocess.run([*command, output], check=True)
    )


def convert_tree(
    options: configuration.Options, num_workers: int
) -> Iterator[int]:
    """Converts the folder."""

    def job(output_dir: str) -> None:
        convert.convert(
            convert.ConvertOptions(
                options.input_dir, output_dir, num_workers=num_workers
            )
        )

    return _repeat(options, job)


def write_plainly(options: configuration.Options) -> Iterator[int]:
    """Writes the folder as most people would: Pillow and TFRecordWriter."""
    return _repeat(
        options, functools.partial(_write_plainly, options.input_dir)
    )


def count_patches(input_dir: str) -> int:
    """Returns how many patches a folder holds; refuses one with faults."""
    return sum(map(len, _list_splits(input_dir)))


def _repeat(
    options: configuration.Options, job: Callable[[str], object]
) -> Iterator[int]:
    """Does a job at every other `next`; clears up in between, and gives 0."""
    num_patches = count_patches(options.input_dir)
    output_dir = os.path.join(options.scratch_dir or "", "output")
    while True:
        shutil.rmtree(output_dir, ignore_errors=True)
        os.sync()  # Nobody pays for the last one's pending writes.
        yield 0
        job(output_dir)
        yield num_patches


def _write_plainly(input_dir: str, output_dir: str) -> None:
    # The other contenders do without, as conversion does.
    import tensorflow as tf

    def bytes_feature(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def int_feature(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    os.makedirs(output_dir)
    for patches in _list_splits(input_dir):
        assert isinstance(patches.images, listing.ImageFiles)
        path = os.path.join(output_dir, f"{patches.split}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for row, path in enumerate(listing.list_paths(patches.images)):
                with Image.open(path) as image:
                    pixels = np.asarray(image).tobytes()
                features = {
                    "id": bytes_feature(bytes(patches.names[row])),
                    "image": bytes_feature(pixels),
                    "label": int_feature(int(patches.labels[row])),
                }
                example = tf.train.Example(
                    features=tf.train.Features(feature=features)
                )
                writer.write(example.SerializeToString())


def _list_splits(input_dir: str) -> list[listing.Listing]:
    options = listing.SourceOptions("kaggle", input_dir)
    splits, bad = kaggle.list_patches(options)
    if bad:
        raise faults.BadInputError(bad)
    return splits
