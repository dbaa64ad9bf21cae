"""The end of another worker, in TensorFlow's own words."""

import re

import tensorflow as tf

from pcam_tfdata.distribution import tf_config
from pcam_tfdata.system import faults

_MOST_CHARACTERS = 500
_ABORTED = "Collective ops is aborted by: "
# One of these is in each message about another worker.
_OF_OTHERS = (_ABORTED, "from remote target /job:", "GetKeyValue() timed out")
_NAME = re.compile(r"/job:(\w+)/(?:replica:0/)?task:(\d+)")


class LostWorkerError(RuntimeError):
    """Another worker ended, or cannot be reached."""


def explain(job: tf_config.Job, error: BaseException) -> LostWorkerError | None:
    """Returns what to raise in place of an error about another worker.

    None for an error of this worker's own.
    """
    message = str(error.message) if isinstance(error, tf.errors.OpError) else ""
    if not any(phrase in message for phrase in _OF_OTHERS):
        return None
    cause = message.partition(_ABORTED)[2] or message
    return LostWorkerError(
        f"{job.name}: lost another worker, or it ended ({quote(cause)}). Start"
        " the same command again on all workers, one process each: it goes on"
        " from the last checkpoint."
    )


def quote(message: str) -> str:
    """Returns what TensorFlow says in one line, its workers as in TF_CONFIG."""
    text = faults.one_line(_NAME.sub(r"\1 \2", message), _MOST_CHARACTERS)
    return f"TensorFlow: {text}"
