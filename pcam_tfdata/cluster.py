"""Workers that train together: how they meet, agree, and end.

TensorFlow's collectives and its coordination service do the work. What workers
do in lockstep they have to decide alike, or they wait for each other for ever;
and when one ends, the others are to end too, and to say why.
"""

import contextlib
import json
import logging
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2

# TensorFlow has no public way to its coordination service.
from tensorflow.python.eager import context as eager_context

from pcam_tfdata import tf_config

# A worker that says nothing for so long is lost. TensorFlow's own 10 seconds are
# few for a machine that is short of memory.
_HEARTBEAT_SECONDS = 30
# Workers that have met tell each other what they are about at once.
_FACTS_SECONDS = 60
_FACTS_KEY = "pcam_tfdata/facts"
_ENDED = "ended"  # In place of facts, from a chief that has none.
_ERROR_CODE = tf.errors.ABORTED
_MOST_TOLD = 400
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How TensorFlow writes a worker's name, and around what it passes on.
_NAME = re.compile(r"/job:(\w+)/(?:replica:0/)?task:(\d+)")
_REPORT = re.compile(rf"Error reported from {_NAME.pattern}: (.*)", re.DOTALL)
_ABORTED = "Collective ops is aborted by: "
_OF_OTHERS = (_ABORTED, "from remote target /job:", "GetKeyValue() timed out")
_CRASHED = "stopped sending heartbeats"
_SERVICE = "CoordinationService"
_ADDITION = re.compile(
    r"\s*(?:Additional GRPC error|The error could be from|\[\[\{\{node).*",
    re.DOTALL,
)

_logger = logging.getLogger(__name__)


class LostWorkerError(RuntimeError):
    """Another worker ended, or cannot be reached."""


def join(job: tf_config.Job, wait_seconds: float) -> tf.distribute.Strategy:
    """Returns a strategy on the devices of all workers, once all are there.

    Call it before any TensorFlow operation. A signal ends the process at once
    while it waits.

    Raises:
        LostWorkerError: some did not come in time.
        ValueError: this worker cannot listen at its address.
    """
    _logger.info(
        "%s: waiting for all %d workers, %g seconds at most.",
        job.describe(job.index), job.num_workers, wait_seconds,
    )  # fmt: skip
    _configure(job, wait_seconds)
    try:
        with _default_signals():
            return tf.distribute.MultiWorkerMirroredStrategy(
                communication_options=_choose_communication()
            )
    except tf.errors.OpError as error:
        raise _explain_failed_join(job, error) from error


class Group:
    """The workers of a job, as one of them sees them.

    All of them call the same methods in the same order, and wait in each for
    the others. A job of one worker waits for nobody.

    Args:
        job: Who they are.
        distribution: Of `join`, or any other where there is one worker.
    """

    def __init__(
        self, job: tf_config.Job, distribution: tf.distribute.Strategy
    ) -> None:
        self._job = job
        self._distribution = distribution

    @property
    def is_chief(self) -> bool:
        """Whether this one writes what is kept."""
        return self._job.is_chief

    @property
    def index(self) -> int:
        """Which one this is."""
        return self._job.index

    @property
    def count(self) -> int:
        """How many there are."""
        return self._job.num_workers

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum over workers: int64 or float64, of one shape."""
        if self.count == 1:
            return values
        total = self._distribution.reduce(
            tf.distribute.ReduceOp.SUM, tf.constant(values), axis=None
        )
        return np.asarray(total)

    def gather(self, numbers: Sequence[float]) -> np.ndarray:
        """Returns the numbers of each worker: float64 [num_workers, n]."""
        places = np.zeros((self.count, len(numbers)))
        places[self.index] = numbers
        return self.sum(places)

    def bytes_of_chief(self, data: bytes) -> bytes:
        """Returns the chief's bytes; those of other workers are dropped."""
        if self.count == 1:
            return data
        size = int(self.gather([len(data)])[0, 0])
        words = np.zeros(-(-size // 8), np.int64)
        if self.is_chief:
            words.view(np.uint8)[:size] = np.frombuffer(data, np.uint8)
        return self.sum(words).tobytes()[:size]

    def array_of_chief(self, array: np.ndarray) -> np.ndarray:
        """Returns the chief's array, bit for bit; all have one shape and type."""
        found = self.bytes_of_chief(np.ascontiguousarray(array).tobytes())
        return np.frombuffer(found, array.dtype).reshape(array.shape)

    def check_same(self, facts: Mapping[str, object]) -> None:
        """Compares what workers are about, before anything depends on it.

        Not by collectives: those need as many devices on each worker.

        Args:
            facts: By name, as a message calls it; JSON can hold each.

        Raises:
            ValueError: a fact is not that of the chief.
            LostWorkerError: the chief has ended.
        """
        context = eager_context.context()
        if self.is_chief:
            context.set_config_key_value(_FACTS_KEY, json.dumps(facts))
            return
        text = context.get_config_key_value(_FACTS_KEY, _FACTS_SECONDS * 1000)
        expected = json.loads(text)
        if _ENDED in expected:
            raise _tell_end(self._job, 0, expected[_ENDED])
        found = json.loads(json.dumps(facts))
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise ValueError(
                    f"found {name} {_show(found.get(name))} on this worker,"
                    f" expected the chief's {_show(expected.get(name))}. Start"
                    " the same command, on the same records and versions, on"
                    " each worker."
                )

    @contextlib.contextmanager
    def failures_told(self) -> Iterator[None]:
        """Tells the other workers what ends this one, and why they end.

        Raises:
            LostWorkerError: another worker ended, or cannot be reached.
        """
        try:
            yield
        except LostWorkerError:
            raise
        except BaseException as error:
            if self.count == 1:
                raise
            lost = self._find_lost(error)
            if lost is not None:
                raise lost from error
            self._report(error)
            raise

    def _report(self, error: BaseException) -> None:
        """Has TensorFlow tell the other workers."""
        text = " ".join(str(error).split())[:_MOST_TOLD]
        if not isinstance(error, Exception):
            text = "it was interrupted."
        context = eager_context.context()
        if self.is_chief:
            with contextlib.suppress(tf.errors.OpError):  # Facts are there.
                context.set_config_key_value(
                    _FACTS_KEY, json.dumps({_ENDED: text})
                )
        with contextlib.suppress(tf.errors.OpError):  # They may know already.
            context.report_error_to_cluster(_ERROR_CODE, text)

    def _find_lost(self, error: BaseException) -> LostWorkerError | None:
        """Returns which worker's end an error of TensorFlow is about, if any."""
        if not isinstance(error, tf.errors.OpError):
            return None
        message = str(error.message)
        if not any(phrase in message for phrase in _OF_OTHERS):
            return None
        return _explain(self._job, message.rpartition(_ABORTED)[2])


def _configure(job: tf_config.Job, wait_seconds: float) -> None:
    """Sets how long workers wait for each other."""
    counts: dict[str, int] = {}
    for kind, _ in job.workers:
        counts[kind] = counts.get(kind, 0) + 1
    context = eager_context.context()
    leader, number = job.workers[0]
    context.configure_coordination_service(
        "standalone",
        f"/job:{leader}/replica:0/task:{number}",
        cluster_register_timeout_in_ms=round(wait_seconds * 1000),
        heartbeat_timeout_in_ms=_HEARTBEAT_SECONDS * 1000,
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name=kind, num_tasks=count)
            for kind, count in counts.items()
        ],
    )
    # Without this the chief waits for an hour.
    context.coordination_service.cluster_register_with_barrier = True


def _choose_communication() -> tf.distribute.experimental.CommunicationOptions:
    kinds = tf.distribute.experimental.CommunicationImplementation
    has_gpu = bool(tf.config.get_visible_devices("GPU"))
    return tf.distribute.experimental.CommunicationOptions(
        implementation=kinds.NCCL if has_gpu else kinds.RING
    )


@contextlib.contextmanager
def _default_signals() -> Iterator[None]:
    """Lets signals end the process: Python cannot handle them meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {
        number: signal.signal(number, signal.SIG_DFL) for number in _SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _explain_failed_join(
    job: tf_config.Job, error: tf.errors.OpError
) -> Exception:
    message = str(error.message)
    name = job.describe(job.index)
    if "Could not start gRPC server" in message:
        return ValueError(
            f"{name}: found that TensorFlow cannot listen there, expected a"
            " free port on this machine. Does another process hold it?"
        )
    missing = message.partition("timed out task names:")[2]
    names = [job.describe(index) for index in _find_workers(job, missing)]
    if not names and isinstance(error, tf.errors.DeadlineExceededError):
        names = [job.describe(0)]  # Whom all others ask.
    return LostWorkerError(
        f"{name}: found no {', no '.join(names) or 'cluster'} in time"
        f" (TensorFlow: {_shorten(message)}). Start the same command on all"
        " workers, with the same cluster in TF_CONFIG; --worker_wait_seconds"
        " says how long they wait."
    )


def _explain(job: tf_config.Job, message: str) -> LostWorkerError:
    """Returns what to say of another worker's end."""
    found = _find_workers(job, message)
    if not found and _SERVICE in message:
        found = [0]  # It runs at the chief.
    name = job.describe(found[0]) if found else "another worker"
    reported = _REPORT.search(message)
    if reported:
        message = reported.group(3)
        if _CRASHED not in message and found:
            return _tell_end(job, found[0], _shorten(message))
    return LostWorkerError(
        f"{job.describe(job.index)}: lost {name} (TensorFlow:"
        f" {_shorten(message)}). Start the same command again on all workers:"
        " it goes on from the last checkpoint."
    )


def _find_workers(job: tf_config.Job, message: str) -> list[int]:
    """Returns the workers that a message of TensorFlow names."""
    names = [
        (match.group(1), int(match.group(2)))
        for match in _NAME.finditer(message)
    ]
    return [job.workers.index(name) for name in names if name in job.workers]


def _tell_end(job: tf_config.Job, index: int, why: str) -> LostWorkerError:
    return LostWorkerError(f"{job.describe(index)} ended: {why}")


def _shorten(message: str) -> str:
    """Returns what TensorFlow says, without what it adds, in one line."""
    told = " ".join(_ADDITION.sub("", message).split())
    return told[:_MOST_TOLD] or " ".join(message.split())[:_MOST_TOLD]


def _show(value: object) -> str:
    return "nothing" if value is None else str(value)
