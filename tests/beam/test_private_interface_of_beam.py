"""What is used of Apache Beam beyond its public interface."""

import pytest

pytestmark = pytest.mark.beam


def test_local_workers_start_under_a_lock():
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    lock = worker_handlers.SUBPROCESS_LOCK
    assert lock.acquire(blocking=False), "beam.beam_job holds it after a signal"
    lock.release()
