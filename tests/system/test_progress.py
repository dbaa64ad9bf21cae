"""How far a job is, in lines."""

import logging
import time

import pytest

from pcam_tfdata.system import progress


@pytest.fixture
def often(monkeypatch):
    """Has lines come at once."""
    monkeypatch.setitem(progress._LINES, "mininterval", 0.001)
    monkeypatch.setitem(progress._LINES, "delay", 0.001)


def test_whole_last_batch_may_go_beyond_the_end(caplog, often):
    caplog.set_level(logging.INFO)
    with progress.Progress(100, "predict") as bar:
        for done in (64, 128):
            time.sleep(0.01)
            bar.advance_to(done, auc=0.5)
    first, last = caplog.messages
    assert first.startswith("predict: 64 of 100 patches, ")
    assert last.startswith("predict: 100 of 100 patches, ")
    assert last.endswith(" left, auc=0.5")


def test_other_things_than_patches_have_their_unit(caplog, often):
    caplog.set_level(logging.INFO)
    with progress.Progress(2000, "unpack") as bar:
        bar.unit = " MiB"
        time.sleep(0.01)
        bar.advance_to(1000)
    (line,) = caplog.messages
    assert line.startswith("unpack: 1,000 of 2,000 MiB, ")
    assert " MiB/s, " in line


def test_quiet_logger_gets_no_lines(caplog, often):
    with caplog.at_level(logging.WARNING, "pcam_tfdata"):
        assert progress.is_quiet()
        with progress.Progress(100, "predict") as bar:
            time.sleep(0.01)
            bar.advance_to(64, auc=0.5)
        assert caplog.messages == []
    assert not progress.is_quiet()
