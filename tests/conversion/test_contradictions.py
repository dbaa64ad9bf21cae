"""Labels that contradict what else a source says."""

import logging

import pytest

from pcam_tfdata.conversion import contradictions


def judge(counts, on_mismatch="fail"):
    contradictions.judge(counts, "the masks", "source", on_mismatch)


def test_a_few_are_kept_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        judge({"train": 3, "test": 2, "valid": 0})
    assert "found 5 labels that contradict the masks (train 3, test 2)" in (
        caplog.text
    )


def test_many_are_refused_unless_asked_for(caplog):
    with pytest.raises(ValueError, match=r"found 6 labels .* expected 5 at"):
        judge({"train": 6})
    judge({"train": 6}, "warn")
    assert "They are kept" in caplog.text


def test_none_is_no_line(caplog):
    judge({"train": 0})
    assert not caplog.text
