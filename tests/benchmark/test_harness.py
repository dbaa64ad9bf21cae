"""The harness that times contenders in turn."""

import os
import pathlib

import contenders
import numpy as np
import pytest

from pcam_tfdata.benchmark import configuration, harness, process_usage

_OPTIONS = configuration.Options(
    "nothing", num_repeats=2, min_patches=6, min_seconds=0, warm_up=1
)
_HAS_PROC = pathlib.Path("/proc/self/status").exists()
needs_proc = pytest.mark.skipif(not _HAS_PROC, reason="there is no /proc")


def measured(*others: harness.Contender) -> list[harness.Outcome]:
    named = {other.__name__: other for other in others}
    return harness.measure({"good": contenders.count_up} | named, _OPTIONS)


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


def test_a_contender_that_never_answers_is_ended(monkeypatch):
    monkeypatch.setattr(harness, "_MAX_SECONDS", 0.5)
    monkeypatch.setattr(harness, "_SECONDS_BETWEEN_SAMPLES", 0.1)
    slow = {"slow": contenders.never_answer}
    (outcome,) = harness.measure(slow, _OPTIONS)
    assert outcome.error == "no answer for 0.5 s"


@needs_proc
def test_memory_is_the_process_own_without_mapped_files(tmp_path):
    size = 1 << 26
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    _, before = process_usage.read_usage(os.getpid())
    mapped = np.memmap(path, np.uint8, mode="r")
    assert mapped.sum() == 0
    _, with_file = process_usage.read_usage(os.getpid())
    assert with_file - before < size / 2
    array = np.ones(size, np.uint8)
    _, with_array = process_usage.read_usage(os.getpid())
    del array
    assert with_array - before > size / 2


def test_without_proc_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(process_usage, "_ROOT", "/no/such/folder")
    assert process_usage.read_usage(os.getpid()) == (0, 0)
