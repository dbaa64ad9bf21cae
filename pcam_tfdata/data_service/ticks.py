"""A dataset that may be waited for, with ticks in between."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pcam_tfdata.pipeline import batches

# Kinds of elements: of the dataset, a tick, and one that says that it ended.
ELEMENT, TICK, END = range(3)
TICK_SECONDS = 0.2


def with_ticks(ds: tf.data.Dataset) -> tf.data.Dataset:
    """Returns (kind, *element) of a dataset, and a tick now and then.

    If a worker dies, the end of its job never comes (TensorFlow 2.21), and
    nothing from outside ends the waiting for the next element.
    """
    nothing = tuple(
        tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in ds.element_spec
    )
    clock = tf.raw_ops.SleepDataset(
        input_dataset=tf.data.experimental.to_variant(
            tf.data.Dataset.from_tensors(np.int64(0)).repeat()
        ),
        sleep_microseconds=int(TICK_SECONDS * 1e6),
        output_types=[tf.int64],
        output_shapes=[tf.TensorShape([])],
    )
    clock = tf.data.experimental.from_variant(
        clock, tf.TensorSpec([], tf.int64)
    )

    def mark(kind: int, element: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        return (tf.constant(kind), *element)

    job = ds.map(lambda *element: mark(ELEMENT, element))
    end = tf.data.Dataset.from_tensors(mark(END, nothing))
    ticks = clock.map(lambda _: mark(TICK, nothing))

    def choose(number: tf.Tensor) -> tf.data.Dataset:
        first = tf.data.Dataset.range(1 - number)
        second = tf.data.Dataset.range(number)
        return first.flat_map(lambda _: job.concatenate(end)).concatenate(
            second.flat_map(lambda _: ticks)
        )

    ds = tf.data.Dataset.range(2)
    ds = ds.interleave(
        choose, cycle_length=2, num_parallel_calls=2, deterministic=False
    )
    return batches.limit_threads(ds, 0)
