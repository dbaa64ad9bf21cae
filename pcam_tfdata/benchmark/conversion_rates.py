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


def repeat(
    options: configuration.Options, job: Callable[[str, str], object]
) -> Iterator[int]:
    """Does a job at every other `next`; clears up in between, and gives 0.

    Args:
        options: Name the folder.
        job: Makes of it another one, whose path comes second.
    """
    output_dir = os.path.join(options.scratch_dir, "output")
    num_patches = sum(map(len, list_splits(options.input_dir)))
    while True:
        shutil.rmtree(output_dir, ignore_errors=True)
        os.sync()  # Nobody pays for the last one's pending writes.
        yield 0
        job(options.input_dir, output_dir)
        yield num_patches


def list_splits(input_dir: str) -> list[listing.Listing]:
    """Returns the patches of a folder, train first; refuses one with faults."""
    splits, bad = kaggle.list_patches(
        listing.SourceOptions("kaggle", input_dir)
    )
    if bad:
        raise faults.BadInputError(bad)
    return splits


def copy_tree(input_dir: str, output_dir: str) -> None:
    """Copies the folder, as the system does, and what links lead to."""
    subprocess.run(["cp", "-rL", input_dir, output_dir], check=True)


def convert_tree(input_dir: str, output_dir: str, num_workers: int) -> None:
    """Converts the folder."""
    source = listing.SourceOptions("kaggle", input_dir)
    convert.convert(
        convert.ConvertOptions(source, output_dir, num_workers=num_workers)
    )


def write_plainly(input_dir: str, output_dir: str) -> None:
    """Writes the folder as most people would: Pillow and TFRecordWriter."""
    # The other contenders do without, as conversion does.
    import tensorflow as tf

    os.makedirs(output_dir)
    for patches in list_splits(input_dir):
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
