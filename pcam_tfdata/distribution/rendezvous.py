"""Where the workers of a job meet before they train."""

import collections
import logging
import os

import tensorflow as tf

from pcam_tfdata.distribution import lost_workers, private_interfaces, tf_config
from pcam_tfdata.system import interruption

# A worker that says nothing for so long is lost. TensorFlow's own 10 seconds are
# few for a machine that is short of memory.
_HEARTBEAT_SECONDS = 30
_NO_PROXY = "no_grpc_proxy"

_logger = logging.getLogger(__name__)


def join(job: tf_config.Job, wait_seconds: float) -> tf.distribute.Strategy:
    """Returns a strategy on the devices of all workers, once all are there.

    Call it before any TensorFlow operation. A signal ends the process at once
    while it waits.

    Raises:
        LostWorkerError: some did not come in time, or this worker cannot listen
            at its address.
    """
    _logger.info(
        "%s: waiting for all %d workers, %g seconds at most.",
        job.name, job.num_workers, wait_seconds,
    )  # fmt: skip
    _configure(job, wait_seconds)
    _bypass_proxies(job)
    kinds = tf.distribute.experimental.CommunicationImplementation
    has_gpu = bool(tf.config.get_visible_devices("GPU"))
    communication = tf.distribute.experimental.CommunicationOptions(
        implementation=kinds.NCCL if has_gpu else kinds.RING
    )
    try:
        with interruption.signals_end_process():
            return tf.distribute.MultiWorkerMirroredStrategy(
                communication_options=communication
            )
    except tf.errors.OpError as error:
        raise lost_workers.LostWorkerError(
            f"{job.name}: found no cluster of all workers within"
            f" {wait_seconds:g} seconds"
            f" ({lost_workers.quote(str(error.message))}). Start the same"
            " command on all workers, each at a free port, with the same"
            " cluster in TF_CONFIG; --worker_wait_seconds says how long they"
            " wait."
        ) from error


def _configure(job: tf_config.Job, wait_seconds: float) -> None:
    """Sets how long workers wait for each other."""
    counts = collections.Counter(kind for kind, _ in job.workers)
    context = private_interfaces.eager_context()
    leader, number = job.workers[0]
    context.configure_coordination_service(
        "standalone",
        f"/job:{leader}/replica:0/task:{number}",
        cluster_register_timeout_in_ms=round(wait_seconds * 1000),
        heartbeat_timeout_in_ms=_HEARTBEAT_SECONDS * 1000,
        coordinated_jobs=[
            private_interfaces.describe_job(kind, count)
            for kind, count in counts.items()
        ],
    )
    # Without this the chief waits for an hour.
    context.coordination_service.cluster_register_with_barrier = True


def _bypass_proxies(job: tf_config.Job) -> None:
    """Has gRPC connect to workers itself, where a proxy for the web is set."""
    known = os.environ.get(_NO_PROXY) or os.environ.get("no_proxy", "")
    hosts = [address.rpartition(":")[0] for address in job.addresses]
    os.environ[_NO_PROXY] = ",".join([*filter(None, [known]), *hosts])
