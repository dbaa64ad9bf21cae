"""How fast a Kaggle folder becomes records, beside copying it.

A piece of work is a whole conversion of `input_dir`, into a folder in
`scratch_dir` that is not there before.
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
    return _work_over_and_over(
        options, lambda: subprocess.run(command, check=True)
    )


def convert_tree(
    options: configuration.Options, num_workers: int = 1
) -> Iterator[int]:
    """Converts the folder."""
    job = convert.ConvertOptions(
        options.input_dir, _output_dir(options), num_workers=num_workers
    )
    return _work_over_and_over(options, lambda: convert.convert(job))


def write_plainly(options: configuration.Options) -> Iterator[int]:
    """Writes the folder as most people would: Pillow and TFRecordWriter."""
    return _work_over_and_over(
        options, lambda: _write_plainly(options.input_dir, _output_dir(options))
    )


def remove_output(options: configuration.Options) -> None:
    """Removes what the last job wrote; nobody pays for its pending writes."""
    shutil.rmtree(_output_dir(options), ignore_errors=True)
    os.sync()


def count_patches(input_dir: str) -> int:
    """Returns how many patches a folder holds; refuses one with faults."""
    return sum(map(len, _list_splits(input_dir)))


def _work_over_and_over(
    options: configuration.Options, work: Callable[[], object]
) -> Iterator[int]:
    """Does a whole job at each `next`."""
    num_patches = count_patches(options.input_dir)
    while True:
        shutil.rmtree(_output_dir(options), ignore_errors=True)
        work()
        yield num_patches


def _output_dir(options: configuration.Options) -> str:
    return os.path.join(options.scratch_dir or "", "output")


def _list_splits(input_dir: str) -> list[listing.Listing]:
    train, train_faults = kaggle.list_train(input_dir)
    test, test_faults = kaggle.list_test(input_dir)
    if train_faults or test_faults:
        raise faults.BadInputError([*train_faults, *test_faults])
    return [train, test]


def _write_plainly(input_dir: str, output_dir: str) -> None:
    # The other contenders do without, as conversion does.
    import tensorflow as tf

    def feature(kind: str, value: object) -> tf.train.Feature:
        lists = {"bytes": tf.train.BytesList, "int64": tf.train.Int64List}
        return tf.train.Feature(**{f"{kind}_list": lists[kind](value=[value])})

    os.makedirs(output_dir)
    for patches in _list_splits(input_dir):
        assert isinstance(patches.images, listing.ImageFiles)
        path = os.path.join(output_dir, f"{patches.split}.tfrecord")
        with tf.io.TFRecordWriter(path) as writer:
            for row, path in enumerate(listing.list_paths(patches.images)):
                with Image.open(path) as image:
                    pixels = np.asarray(image).tobytes()
                features = {
                    "id": feature("bytes", bytes(patches.names[row])),
                    "image": feature("bytes", pixels),
                    "label": feature("int64", int(patches.labels[row])),
                }
                example = tf.train.Example(
                    features=tf.train.Features(feature=features)
                )
                writer.write(example.SerializeToString())
