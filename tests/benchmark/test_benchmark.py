"""The harness that times contenders, and the command on top of it."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import conftest
import contenders
import numpy as np
import pytest

from pcam_tfdata.benchmark import (
    configuration,
    contender,
    feeds,
    jobs,
    limits,
    measure,
    results,
    usage,
)
from pcam_tfdata.system import memory

_TINY = contender.Plan(num_repeats=2, warm_up=1, min_patches=6, min_seconds=0)
_FLAGS = ("--num_repeats=1", "--min_patches=1", "--min_seconds=0")
_HAS_PROC = pathlib.Path("/proc/self/status").exists()
needs_proc = pytest.mark.skipif(not _HAS_PROC, reason="there is no /proc")


def measured(*factories) -> list[measure.Outcome]:
    good = contender.Contender("good", contenders.count_up, {"size": 3})
    others = [contender.Contender(f.__name__, f) for f in factories]
    return measure.measure([good, *others], _TINY)


# The harness.


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
    plan = contender.Plan(1, 0, min_patches=1, max_seconds=0.5)
    slow = contender.Contender("slow", contenders.never_answer)
    (outcome,) = measure.measure([slow], plan)
    assert outcome.error == "no answer for 0.5 s"


@needs_proc
def test_memory_is_the_process_own_without_mapped_files(tmp_path):
    size = 1 << 26
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    watch = usage.Watch(os.getpid())
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
    monkeypatch.setattr(usage, "_ROOT", "/no/such/folder")
    watch = usage.Watch(os.getpid())
    watch.sample()
    assert watch.peak_bytes is None
    assert watch.cpu_seconds() is None


# The report.


def outcome_of(name: str, *rates: float, **usage) -> measure.Outcome:
    repeats = [measure.Repeat(1000, 1000 / rate, **usage) for rate in rates]
    return measure.Outcome(name, repeats=repeats)


def test_ratio_is_the_median_of_the_ratios_of_each_round():
    limit = outcome_of("limit", 100, 1000, 400)
    other = outcome_of("other", 50, 200, 300)  # 0.5, 0.2, 0.75.
    row = results.summarize([limit, other], "limit")[1]
    assert row.ratio_to_limit == pytest.approx(0.5)
    assert row.patches_per_second == pytest.approx(200)
    assert row.patches_per_second_min == pytest.approx(50)
    assert row.patches_per_second_max == pytest.approx(300)
    assert row.megabytes_per_second == pytest.approx(200 * 27_648 / 1e6)


def test_usage_is_the_largest_memory_and_the_median_time():
    usage = {"cpu_seconds": 2.0, "peak_bytes": 3_000_000}
    (row,) = results.summarize([outcome_of("limit", 10, **usage)], "limit")
    assert row.peak_rss_mb == pytest.approx(3)
    assert row.cpu_seconds_per_1000_patches == pytest.approx(2)


def test_what_is_not_measured_is_said_and_null():
    rows = results.summarize([outcome_of("limit", 10)], "limit")
    assert "not measured" in results.format_rows(rows)
    assert results.to_json(rows)[0]["peak_rss_mb"] is None


def test_a_failed_row_has_only_its_reason():
    failed = measure.Outcome("bad", error="no such module")
    rows = results.summarize([outcome_of("limit", 10), failed], "limit")
    assert results.to_json(rows)[1] == {
        "name": "bad",
        "error": "no such module",
    }
    assert "bad: failed: no such module" in results.format_rows(rows)


def test_a_failed_limit_leaves_the_rates():
    limit = measure.Outcome("limit", error="no such module")
    row = results.summarize([limit, outcome_of("other", 10)], "limit")[1]
    assert row.ratio_to_limit is None
    assert row.patches_per_second == pytest.approx(10)


# The command.


def left_over(marker: str) -> list[str]:
    """Returns the commands of processes that have `marker` in their variables."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            pass  # It has ended, or is another user's.
    return found


def marked(tmp_path) -> tuple[str, dict[str, str]]:
    """Returns a text and variables that hold it."""
    marker = f"BENCHMARK_TEST={tmp_path}"
    return marker, os.environ | dict([marker.split("=")])


@pytest.mark.long
def test_input_times_every_way_and_leaves_no_process(records_dir, tmp_path):
    marker, variables = marked(tmp_path)
    path = tmp_path / "input.json"
    result = conftest.run_pcam(
        "benchmark", "--what=input", f"--records_dir={records_dir}",
        "--batch_size=8", f"--json_output={path}", *_FLAGS, env=variables,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(path.read_text())
    assert found["parameters"]["patches"] == conftest.NUM_TRAIN
    assert {"cpu", "cores", "ram_gib", "platform"} <= found["machine"].keys()
    assert {"python", "numpy", "tensorflow", "keras"} <= found[
        "versions"
    ].keys()
    names = [row["name"] for row in found["rows"]]
    assert names[:5] == [
        limits.GATHER, "memcpy", "mmap", "mmap, first epoch with CRCs", "stream",
    ]  # fmt: skip
    assert len(names) in (8, 9)  # One more with a GPU.
    for row in found["rows"]:
        assert "error" not in row, row
        assert row["patches_per_second"] > 0
        assert row["ratio_to_limit"] > 0
        assert row["name"] in result.stdout
    assert os.listdir(tmp_path) == ["input.json"]
    assert left_over(marker) == []


def measure_here(contenders, plan) -> list[measure.Outcome]:
    """Does two pieces of each contender in this process."""
    outcomes = []
    for each in contenders:
        pieces = each.factory(**each.arguments)
        found = [measure.Repeat(next(pieces), 1) for _ in range(2)]
        outcomes.append(measure.Outcome(each.name, repeats=found))
    return outcomes


@pytest.mark.parametrize(
    ("what", "num_notes"), [("training", 1), ("predict", 0)]
)
def test_steps_are_timed_beside_one_constant_batch(
    what, num_notes, records_dir, monkeypatch
):
    monkeypatch.setattr(measure, "measure", measure_here)
    report = jobs.run(
        configuration.BenchmarkOptions(what, records_dir, batch_size=8)
    )
    limit, real, *_ = report.rows
    assert limit["name"].startswith("limit: ")
    assert real["patches_per_second"] % 8 == 0
    assert real["ratio_to_limit"] > 0
    assert len(report.notes) == num_notes


def test_start_times_the_first_batch(records_dir, monkeypatch):
    monkeypatch.setattr(feeds, "hide_gpus", lambda: None)
    report = jobs.run(
        configuration.BenchmarkOptions(
            "start", records_dir, batch_size=8, num_repeats=2
        )
    )
    limit, mmap = report.rows
    assert (limit["ratio_to_limit"], mmap["name"]) == (1, "mmap")
    assert mmap["seconds_min"] <= mmap["seconds"] <= mmap["seconds_max"]


@pytest.mark.long
def test_convert_times_every_way_and_removes_what_it_wrote(
    kaggle_tree, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(measure, "measure", measure_here)
    report = jobs.run(
        configuration.BenchmarkOptions(
            "convert", input_dir=str(kaggle_tree), scratch_dir=str(scratch)
        )
    )
    num_patches = conftest.NUM_TRAIN + conftest.NUM_TEST
    assert report.parameters["patches"] == num_patches
    assert [row["patches_per_second"] for row in report.rows] == [
        num_patches
    ] * 4
    assert os.listdir(scratch) == []


@needs_proc
def test_interrupted_it_leaves_nothing(kaggle_tree, tmp_path):
    marker, variables = marked(tmp_path)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pcam_tfdata", "benchmark", "--what=convert",
            f"--input_dir={kaggle_tree}", f"--scratch_dir={tmp_path}",
            "--min_seconds=60",
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=variables,
    )  # fmt: skip
    told = []
    for line in iter(process.stderr.readline, ""):
        told.append(line)
        if "round 1" in line:
            break
    else:
        pytest.fail("".join(told))
    os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
    assert process.stderr.read() == "pcam benchmark: interrupted.\n"
    assert process.wait() == 130
    assert left_over(marker) == []
    assert os.listdir(tmp_path) == ["kaggle"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "--what is missing"),
        (["--what=nothing"], "flag --what=nothing"),
        (["--what=input"], "--what=input needs --records_dir"),
        (["--what=convert"], "--what=convert needs --input_dir"),
        (["--what=input", "--num_repeats=0"], "flag --num_repeats=0"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ",
)
def test_wrong_usage_exits_2(arguments, found):
    result = conftest.run_pcam("benchmark", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert found in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"batch_size": 61}, "expected at most the number of patches, 60"),
        ({"records_dir": "/no/such"}, "/no/such"),
        ({"splits": ("fold9",)}, "found no split 'fold9'"),
        ({"scratch_dir": "/no/such"}, "Check --scratch_dir"),
        ({"json_output": "/"}, "found a folder"),
        ({"json_output": "/no/such/file"}, "found no folder /no/such"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ",
)
def test_unusable_options_are_refused(records_dir, changes, found):
    options = {"what": "input", "records_dir": records_dir} | changes
    with pytest.raises((ValueError, OSError), match=found):
        jobs.run(configuration.BenchmarkOptions(**options))


def test_more_patches_than_memory_are_refused(records_dir, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000)
    options = configuration.BenchmarkOptions("input", records_dir, batch_size=8)
    with pytest.raises(ValueError, match="Take fewer patches"):
        jobs.run(options)
