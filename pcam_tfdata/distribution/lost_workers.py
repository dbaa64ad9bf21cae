"""What to say of a worker that ended, from what TensorFlow says."""

import re

import tensorflow as tf

from pcam_tfdata.distribution import tf_config

_MOST_TOLD = 400
# How TensorFlow writes a worker's name, and around what it passes on.
_NAME = re.compile(r"/job:(\w+)/(?:replica:0/)?task:(\d+)")
_REPORT = re.compile(rf"Error reported from {_NAME.pattern}: (.*)", re.DOTALL)
_ABORTED = "Collective ops is aborted by: "
_OF_OTHERS = (_ABORTED, "from remote target /job:", "GetKeyValue() timed out")
_CRASHED = "stopped sending heartbeats"
_SECOND = "tried to connect with a different incarnation"
_SERVICE = "CoordinationService"
_AGAIN = (
    "Start the same command again on all workers: it goes on from the last"
    " checkpoint."
)
# What passes through gRPC has its line breaks written out.
_ADDITION = re.compile(
    r"(?:\s|\\n)*(?:Additional GRPC error|The error could be from|\[\[\{\{node).*",
    re.DOTALL,
)


class LostWorkerError(RuntimeError):
    """Another worker ended, or cannot be reached."""


def find(job: tf_config.Job, error: BaseException) -> LostWorkerError | None:
    """Returns which worker's end an error of TensorFlow is about, if any."""
    if not isinstance(error, tf.errors.OpError):
        return None
    message = str(error.message)
    if not any(phrase in message for phrase in _OF_OTHERS):
        return None
    return _explain(job, message.rpartition(_ABORTED)[2])


def explain_failed_join(
    job: tf_config.Job, error: tf.errors.OpError
) -> Exception:
    """Returns what to say where workers do not come together."""
    message = str(error.message)
    name = job.describe(job.index)
    if "Could not start gRPC server" in message:
        return ValueError(
            f"{name}: found that TensorFlow cannot listen there, expected a"
            " free port on this machine. Does another process hold it?"
        )
    told = _ADDITION.sub("", message)
    missing = told.partition("timed out task names:")[2]
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
    own_name = job.describe(job.index)
    reported = _REPORT.search(message)
    if reported:
        message = reported.group(3)
        if _SECOND in message:
            return LostWorkerError(
                f"{own_name}: found that a second process was started as"
                f" {name} while the job runs, or that it restarted, expected"
                f" one process a worker (TensorFlow: {_shorten(message)})."
                f" {_AGAIN}"
            )
        if _CRASHED not in message and found:
            return LostWorkerError(f"{name} ended: {_shorten(message)}")
    return LostWorkerError(
        f"{own_name}: lost {name} (TensorFlow: {_shorten(message)}). {_AGAIN}"
    )


def _find_workers(job: tf_config.Job, message: str) -> list[int]:
    """Returns the workers that a message of TensorFlow names."""
    names = [
        (match.group(1), int(match.group(2)))
        for match in _NAME.finditer(message)
    ]
    return [job.workers.index(name) for name in names if name in job.workers]


def _shorten(message: str) -> str:
    """Returns what TensorFlow says, without what it adds, in one line."""
    told = " ".join(_ADDITION.sub("", message).split())
    return told[:_MOST_TOLD] or " ".join(message.split())[:_MOST_TOLD]
