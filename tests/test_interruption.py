"""Signals that wait for the end of a call."""

import signal

import pytest

from pcam_tfdata import interruption


def test_signal_waits_for_the_end_of_a_call():
    seen = []
    with pytest.raises(KeyboardInterrupt):
        with interruption.put_off():
            signal.raise_signal(signal.SIGINT)
            seen.append("returned")
        seen.append("went on")
    assert seen == ["returned"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt), interruption.put_off():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_is_not_lost_beside_an_error():
    with pytest.raises(KeyboardInterrupt), interruption.put_off():
        signal.raise_signal(signal.SIGINT)
        raise ValueError


def test_calls_that_nothing_disturbs_leave_no_trace():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.put_off():
        pass
    assert signal.getsignal(signal.SIGTERM) is before
