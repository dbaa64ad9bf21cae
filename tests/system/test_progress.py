"""How far a job is, in lines."""

import logging
import time

from pcam_tfdata.system import progress


def test_whole_last_batch_may_go_beyond_the_end(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setitem(progress._LINES, "mininterval", 0.001)
    monkeypatch.setitem(progress._LINES, "delay", 0.001)
    with progress.Progress(100, "predict") as bar:
        for done in (64, 128):
            time.sleep(0.01)
            bar.advance_to(done, auc=0.5)
    first, last = caplog.messages
    assert first.startswith("predict: 64 of 100 patches, ")
    assert last.startswith("predict: 100 of 100 patches, ")
    assert last.endswith(" left, auc=0.5")
