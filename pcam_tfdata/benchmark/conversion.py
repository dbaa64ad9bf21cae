"""How fast a Kaggle folder becomes records, beside copying it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from pcam_tfdata.benchmark import (
    configuration,
    contender,
    machine,
    measure,
    results,
)
from pcam_tfdata.conversion import convert
from pcam_tfdata.sources import kaggle, listing
from pcam_tfdata.system import faults

_LIMIT = "limit: cp -r"
_NUM_WORKERS = (1, 2)
# A piece is the whole job, and a job has nothing to warm up.
_PLAN = contender.Plan(warm_up=0, min_patches=0, min_seconds=0)


def run(options: configuration.BenchmarkOptions) -> results.Report:
    """Times conversions into a temporary folder."""
    num_patches = _count_patches(options.input_dir)
    plan = options.plan(_PLAN)
    with tempfile.TemporaryDirectory(
        prefix="pcam-benchmark-", dir=options.scratch_dir
    ) as folder:
        job = {
            "input_dir": options.input_dir,
            "output_dir": os.path.join(folder, "output"),
            "num_patches": num_patches,
        }
        outcomes = measure.measure(_list_contenders(job), plan)
    return results.build(
        machine.describe(),
        {"what": options.what, "patches": num_patches},
        plan,
        results.summarize(outcomes, _LIMIT),
    )


def copy_tree(
    input_dir: str, output_dir: str, num_patches: int
) -> Iterator[int]:
    """Copies the folder, as the system does, and what links lead to."""

    def work() -> None:
        subprocess.run(["cp", "-rL", input_dir, output_dir], check=True)

    return _Job(work, output_dir, num_patches)


def convert_tree(
    input_dir: str, output_dir: str, num_patches: int, num_workers: int
) -> Iterator[int]:
    """Converts the folder."""
    options = convert.ConvertOptions(
        input_dir, output_dir, num_workers=num_workers
    )
    return _Job(lambda: convert.convert(options), output_dir, num_patches)


def write_plainly(
    input_dir: str, output_dir: str, num_patches: int
) -> Iterator[int]:
    """Writes the folder as most people would: Pillow and TFRecordWriter."""

    def work() -> None:
        _write_plainly(input_dir, output_dir)

    return _Job(work, output_dir, num_patches)


class _Job:
    """A whole job at each `next`; its output is removed after each repeat."""

    def __init__(
        self, work: Callable[[], object], output_dir: str, num_patches: int
    ) -> None:
        self._work = work
        self._output_dir = output_dir
        self._num_patches = num_patches

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        self._remove_output()
        self._work()
        return self._num_patches

    def tidy(self) -> None:
        """Removes the output; nobody pays for another's pending writes."""
        self._remove_output()
        os.sync()

    def _remove_output(self) -> None:
        shutil.rmtree(self._output_dir, ignore_errors=True)


def _list_contenders(job: dict[str, object]) -> list[contender.Contender]:
    workers = [
        contender.Contender(
            f"convert_to_tfrecords, {count} worker{'s' * (count > 1)}",
            convert_tree,
            job | {"num_workers": count},
        )
        for count in _NUM_WORKERS
    ]
    return [
        contender.Contender(_LIMIT, copy_tree, job),
        *workers,
        contender.Contender(
            "Pillow, tf.train.Example, TFRecordWriter", write_plainly, job
        ),
    ]


def _count_patches(input_dir: str) -> int:
    train, found = kaggle.list_train(input_dir)
    test, more = kaggle.list_test(input_dir)
    if found or more:
        raise faults.BadInputError([*found, *more])
    return len(train) + len(test)


def _write_plainly(input_dir: str, output_dir: str) -> None:
    # The other contenders do without, as conversion does.
    import tensorflow as tf

    def feature(kind: str, value: object) -> tf.train.Feature:
        lists = {"bytes": tf.train.BytesList, "int64": tf.train.Int64List}
        return tf.train.Feature(**{f"{kind}_list": lists[kind](value=[value])})

    os.makedirs(output_dir)
    train, _ = kaggle.list_train(input_dir)
    test, _ = kaggle.list_test(input_dir)
    for name, patches in (("train", train), ("test", test)):
        path = os.path.join(output_dir, f"{name}.tfrecord")
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
