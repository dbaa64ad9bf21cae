"""The benchmarks of `pcam benchmark`, and the command."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import conftest
import pytest

from pcam_tfdata.benchmark import (
    configuration,
    harness,
    input_rates,
    jobs,
    limits,
)
from pcam_tfdata.system import memory

_FLAGS = ("--num_repeats=1", "--min_patches=1", "--min_seconds=0")
needs_proc = pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="there is no /proc"
)


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
    assert names[:4] == [
        limits.GATHER, "mmap", "mmap, first epoch with CRCs", "stream",
    ]  # fmt: skip
    assert len(names) in (7, 8)  # One more with a GPU.
    for row in found["rows"]:
        assert "error" not in row, row
        assert row["patches_per_second"] > 0
        assert row["ratio_to_limit"] > 0
        assert row["name"] in result.stdout
    assert os.listdir(tmp_path) == ["input.json"]
    assert left_over(marker) == []


@pytest.mark.long
@needs_proc
def test_loop_times_the_steps_of_a_run_and_leaves_no_process(
    records_dir, tmp_path
):
    marker, variables = marked(tmp_path)
    result = conftest.run_pcam(
        "benchmark", "--what=loop", f"--records_dir={records_dir}",
        "--batch_size=8", *_FLAGS, env=variables,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "steps of a training run" in result.stdout
    assert left_over(marker) == []


def measure_here(contenders, options) -> list[harness.Outcome]:
    """Does two pieces of each contender in this process."""
    outcomes = []
    for name, contender in contenders.items():
        pieces = contender(options)
        repeats = []
        for _ in range(2):
            for _ in range(options.warm_up):
                next(pieces)
            repeats.append(harness.Repeat(next(pieces), 1))
        outcomes.append(harness.Outcome(name, repeats))
    return outcomes


@pytest.mark.parametrize(
    ("what", "num_notes"), [("training", 1), ("predict", 0)]
)
def test_steps_are_timed_beside_one_constant_batch(
    what, num_notes, records_dir, monkeypatch
):
    monkeypatch.setattr(harness, "measure", measure_here)
    report = jobs.run_benchmark(
        configuration.Options(what, records_dir, batch_size=8)
    )
    limit, real, *_ = report.rows
    assert limit["name"].startswith("limit: ")
    assert real["patches_per_second"] % 8 == 0
    assert real["ratio_to_limit"] > 0
    assert len(report.notes) == num_notes


def test_start_times_the_first_batch(records_dir, monkeypatch):
    monkeypatch.setattr(input_rates, "hide_gpus", lambda: None)
    monkeypatch.setattr(harness, "measure", measure_here)
    report = jobs.run_benchmark(
        configuration.Options("start", records_dir, batch_size=8)
    )
    limit, mmap = report.rows
    assert (limit["ratio_to_limit"], mmap["name"]) == (1, "mmap")
    assert (mmap["seconds"], mmap["seconds_max"]) == (1, 1)


@pytest.mark.long
def test_convert_times_every_way_and_removes_what_it_wrote(
    kaggle_tree, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(harness, "measure", measure_here)
    report = jobs.run_benchmark(
        configuration.Options(
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
        ({"scratch_dir": "/no/such"}, "/no/such"),
        ({"json_output": "/"}, "found a folder"),
        ({"json_output": "/no/such/file"}, "found no folder /no/such"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ",
)
def test_unusable_options_are_refused(records_dir, changes, found):
    options = {"what": "input", "records_dir": records_dir} | changes
    with pytest.raises((ValueError, OSError), match=found):
        jobs.run_benchmark(configuration.Options(**options))


def test_more_patches_than_memory_are_refused(records_dir, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1_000_000)
    options = configuration.Options("input", records_dir, batch_size=8)
    with pytest.raises(ValueError, match="Take fewer patches"):
        jobs.run_benchmark(options)
