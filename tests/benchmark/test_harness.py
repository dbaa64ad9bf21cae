"""The harness that times contenders in turn."""

import os
import pathlib

import contenders
import numpy as np
import pytest

from pcam_tfdata.benchmark import (
    configuration,
    harness,
    process_usage,
    timed_process,
)

_OPTIONS = configuration.Options("nothing")
_TINY = timed_process.Plan(
    num_repeats=2, warm_up=1, min_patches=6, min_seconds=0
)
_HAS_PROC = pathlib.Path("/proc/self/status").exists()
needs_proc = pytest.mark.skipif(not _HAS_PROC, reason="there is no /proc")


def measured(*others: harness.Contender) -> list[harness.Outcome]:
    named = {other.__name__: other for other in others}
    return harness.measure(
        {"good": contenders.count_up} | named, _OPTIONS, _TINY
    )


def test_each_repeat_reaches_the_least_number_of_patches():
    (outcome,) = measured()
    assert outcome.error is None
    assert [repeat.num_patches for repeat in outcome.repeats] == [6, 6]


def test_a_failing_contender_gives_its_reason_and_the_others_go_on():
    good, *failed = measured(
        contenders.raise_at_start,
        contenders.raise_at_third,
        contenders.import_missing,
    )
    assert len(good.repeats) == 2
    assert [outcome.error for outcome in failed] == [
        "ValueError: two lines",
        "OSError: no more",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ]


def test_a_contender_that_dies_gives_its_last_words():
    _, died = measured(contenders.die)
    assert died.error == "the process ended with exit code 3: the last words"


def test_a_contender_that_never_answers_is_ended():
    plan = timed_process.Plan(1, 0, min_patches=1, max_seconds=0.5)
    slow = {"slow": contenders.never_answer}
    (outcome,) = harness.measure(slow, _OPTIONS, plan)
    assert outcome.error == "no answer for 0.5 s"


@needs_proc
def test_memory_is_the_process_own_without_mapped_files(tmp_path):
    size = 1 << 26
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    watch = process_usage.Watch(os.getpid())
    watch.sample()
    before = watch.peak_bytes
    mapped = np.memmap(path, np.uint8, mode="r")
    assert mapped.sum() == 0
    watch.sample()
    assert watch.peak_bytes - before < size / 2
    array = np.ones(size, np.uint8)
    watch.sample()
    del array
    assert watch.peak_bytes - before > size / 2


def test_without_proc_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(process_usage, "_ROOT", "/no/such/folder")
    watch = process_usage.Watch(os.getpid())
    watch.sample()
    assert watch.peak_bytes == 0
    assert watch.cpu_seconds() is None
