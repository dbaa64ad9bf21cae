"""Signals that wait for the end of a call."""

import signal

import pytest

from pcam_tfdata.system import interruption


def test_signal_waits_for_the_end_of_a_call():
    seen = []
    with pytest.raises(KeyboardInterrupt):
        with interruption.SignalsDeferred():
            signal.raise_signal(signal.SIGINT)
            seen.append("returned")
        seen.append("went on")
    assert seen == ["returned"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_signal_does_not_wait():
    with pytest.raises(KeyboardInterrupt), interruption.SignalsDeferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_is_not_lost_beside_an_error():
    with pytest.raises(KeyboardInterrupt), interruption.SignalsDeferred():
        signal.raise_signal(signal.SIGINT)
        raise ValueError


def test_an_error_of_what_a_signal_led_to_is_not_lost():
    with pytest.raises(OSError, match="full"):
        with interruption.SignalsDeferred(errors_first=True) as signals:
            signal.raise_signal(signal.SIGINT)
            try:
                signals.check()
            finally:
                raise OSError("the disk is full")
    with pytest.raises(KeyboardInterrupt):
        with interruption.SignalsDeferred(errors_first=True) as signals:
            signal.raise_signal(signal.SIGINT)
            signals.check()


def test_calls_that_nothing_disturbs_leave_no_trace():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.SignalsDeferred():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def deaf():
    """This process ignores Ctrl-C, as one that a shell runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_signal_that_is_ignored_stays_so(deaf):
    with interruption.SignalsDeferred() as signals:
        signal.raise_signal(signal.SIGINT)
        signals.check()
    with interruption.signals_end_process():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
