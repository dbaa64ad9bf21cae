"""Servers of a tf.data service: the dispatcher, and workers that read for it.

They are TensorFlow's own. TensorFlow leaves to its caller to end on a signal, and
not to wait for ever.
"""

import logging
import time
from typing import Any, NoReturn

import tensorflow as tf

from pcam_tfdata.data_service import service_address
from pcam_tfdata.pipeline import buffer_pool
from pcam_tfdata.system import faults, interruption

_service: Any = tf.data.experimental.service
# Trainers that are gone (TensorFlow notices after 5 minutes) leave jobs, which
# keep a shuffle buffer on every worker.
_JOB_CHECK_MS, _JOB_LEFT_MS = 10_000, 60_000
_WATCH_SECONDS = 2.0

_logger = logging.getLogger(__name__)


def serve_dispatcher(port: int, work_dir: str) -> NoReturn:
    """Runs a dispatcher until a signal ends the process.

    Its state is written to `work_dir` before anybody is answered; killed, and
    started with the same port and folder, it goes on.

    Args:
        port: To listen on, free; 0 for any.
        work_dir: Folder on a disk, for one dispatcher at a time.

    Raises:
        RuntimeError: it cannot go on from what is in the folder.
    """
    config = _service.DispatcherConfig(
        port=port,
        work_dir=work_dir,
        fault_tolerant_mode=True,
        job_gc_check_interval_ms=_JOB_CHECK_MS,
        job_gc_timeout_ms=_JOB_LEFT_MS,
    )
    try:
        server = _service.DispatchServer(config)
    # TensorFlow's servers raise none of its own errors.
    except (RuntimeError, ValueError, IndexError) as error:
        raise RuntimeError(
            f"--work_dir={work_dir}: no dispatcher starts from what is there"
            f" (TensorFlow: {faults.one_line(error, 300)}). Choose a new folder"
            " on a disk; trainers go on from their checkpoints."
        ) from error
    own_port = server.target.rpartition(":")[-1]
    _logger.info("Dispatcher ready on port %s, using %s.", own_port, work_dir)
    while True:
        time.sleep(_WATCH_SECONDS)


def serve_worker(
    port: int, dispatcher: str, worker_address: str, seconds: float
) -> NoReturn:
    """Runs a worker until a signal ends the process.

    Args:
        port: To listen on, free; 0 for any.
        dispatcher: `host:port`.
        worker_address: `host:port` by which trainers reach it; the port may be
            `service_address.ANY_PORT`.
        seconds: How long it waits for a dispatcher that does not answer.

    Raises:
        ConnectionError: no dispatcher answers.
    """
    buffer_pool.keep_freed_memory()
    config = _service.WorkerConfig(dispatcher, worker_address, port)
    service_address.wait_for(dispatcher, seconds)
    # If its dispatcher dies at this moment, TensorFlow waits for it for ever.
    with interruption.signals_end_process():
        server = _service.WorkerServer(config)
    own_port = server._address.rpartition(":")[-1]  # No public name has it.
    known_as = worker_address.replace(service_address.ANY_PORT, own_port)
    _logger.info("Worker ready on port %s, known as %s.", own_port, known_as)
    while True:
        time.sleep(_WATCH_SECONDS)
        service_address.wait_for(dispatcher, seconds)
