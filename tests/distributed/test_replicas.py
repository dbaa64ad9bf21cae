import logging

import pytest

from pcam_tfdata.distribution import replicas


@pytest.mark.parametrize(
    ("has_driver", "visible", "is_told"),
    [(True, None, True), (True, "-1", False), (False, None, False)],
    ids=["driver", "hidden", "no_driver"],
)
def test_unused_gpu_is_told(
    tmp_path, monkeypatch, caplog, has_driver, visible, is_told
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    driver = tmp_path if has_driver else tmp_path / "none"
    monkeypatch.setattr(replicas, "_DRIVER", driver)
    caplog.set_level(logging.WARNING)
    replicas.make_strategy()
    assert ("pcam doctor" in caplog.text) == is_told
