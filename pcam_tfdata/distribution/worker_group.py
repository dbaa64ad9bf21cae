"""Workers that train together: how they agree, and end.

TensorFlow's collectives and its coordination service do the work. What workers
do in lockstep they have to decide alike, or they wait for each other for ever;
and when one ends, the others are to end too, and to say why.
"""

import contextlib
import dataclasses
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf

from pcam_tfdata.distribution import lost_workers, private_interfaces, tf_config
from pcam_tfdata.system import faults

# Workers that have joined tell each other what they are about at once.
_FACTS_SECONDS = 60
_FACTS_KEY = "pcam_tfdata/facts"
_MOST_CHARACTERS = 400

Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class WorkerGroup:
    """The workers of a job, as one of them sees them: most often, itself alone.

    All of them call the same methods in the same order, and wait in each for
    the others. A job of one worker waits for nobody.

    Attributes:
        strategy: On the devices of all workers.
        job: Who they are.
    """

    strategy: tf.distribute.Strategy
    job: tf_config.Job = tf_config.ALONE

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum over workers: int64 or float64, of one shape."""
        if self.job.num_workers == 1:
            return values
        total = self.strategy.reduce(
            tf.distribute.ReduceOp.SUM, tf.constant(values), axis=None
        )
        return np.asarray(total)

    def gather(self, numbers: Sequence[float]) -> np.ndarray:
        """Returns the numbers of each worker: float64 [num_workers, n]."""
        rows = np.zeros((self.job.num_workers, len(numbers)))
        rows[self.job.index] = numbers
        return self.sum(rows)

    def wait(self) -> None:
        """Waits until all workers have come so far."""
        self.sum(np.zeros(1))

    def broadcast(self, value: Value) -> Value:
        """Returns the chief's value, bit for bit; others' are dropped."""
        if self.job.num_workers == 1:
            return value
        data = pickle.dumps(value)
        size = int(self.gather([len(data)])[0, 0])
        words = np.zeros(-(-size // 8), np.int64)
        if self.job.is_chief:
            words.view(np.uint8)[:size] = np.frombuffer(data, np.uint8)
        return pickle.loads(self.sum(words).tobytes())

    def check_same(self, facts: Mapping[str, object]) -> None:
        """Compares what workers are about, before anything depends on it.

        Not by collectives: those need as many devices on each worker.

        Args:
            facts: By name, as a message calls it; JSON can hold each.

        Raises:
            ValueError: a fact is not that of the chief.
        """
        context = private_interfaces.eager_context()
        text = json.dumps(facts)
        if self.job.is_chief:
            context.set_config_key_value(_FACTS_KEY, text)
            return
        found = json.loads(text)
        expected = json.loads(
            context.get_config_key_value(_FACTS_KEY, _FACTS_SECONDS * 1000)
        )
        for name in sorted(expected.keys() | found.keys()):
            here, chief = found.get(name), expected.get(name)
            if here != chief:
                raise ValueError(
                    f"found {name} {here} on this worker, expected the chief's"
                    f" {chief}. Start the same command, on the same records and"
                    " versions, on each worker."
                )

    @contextlib.contextmanager
    def failures_reported(self) -> Iterator[None]:
        """Tells the other workers what ends this one, and why they end.

        Raises:
            LostWorkerError: another worker ended, or cannot be reached.
        """
        try:
            yield
        except BaseException as error:
            if self.job.num_workers == 1:
                raise
            lost = lost_workers.explain(self.job, error)
            if lost is not None:
                raise lost from error
            text = "it was interrupted."
            if isinstance(error, Exception):
                text = faults.one_line(error, _MOST_CHARACTERS)
            with contextlib.suppress(tf.errors.OpError):  # They may know it.
                private_interfaces.eager_context().report_error_to_cluster(
                    tf.errors.ABORTED, text
                )
            raise
