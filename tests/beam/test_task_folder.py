"""Tasks as Beam's workers see them; Beam itself is not needed here."""

import concurrent.futures
import errno
import importlib
import multiprocessing
import pathlib
import pickle
import shutil
import socket
import sys
import time

import numpy as np
import pytest
from conftest import run_pcam, write_patches

import pcam_tfdata
from pcam_tfdata.beam import beam_job, task_folder
from pcam_tfdata.conversion import write_shard
from pcam_tfdata.records import manifest
from pcam_tfdata.sources import listing
from pcam_tfdata.system import versions


def double(number: int) -> int:
    return 2 * number


def fail(number: int) -> int:
    raise OSError(errno.EIO, f"disk {number}", f"/disk/{number}")


class OddError(Exception):
    """It cannot be unpickled: its arguments are not what it is made of."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail_oddly(number: int) -> int:
    raise OddError(number, 2)


def raise_it(error: Exception) -> None:
    raise error


@pytest.fixture
def job(tmp_path) -> str:
    return str(tmp_path)


def test_each_task_finds_its_own_argument(job):
    assert task_folder.write_tasks(job, double, iter([5, 7, 9]), {}) == 3
    for number in (2, 0, 1):
        task_folder.run_task(number, job)
    assert task_folder.collect(job, 3) == [10, 14, 18]


def test_task_that_is_done_is_not_done_again(job):
    task_folder.write_tasks(job, fail, [5], {})
    path = pathlib.Path(job) / "result-0"
    path.write_bytes(pickle.dumps("done"))
    task_folder.run_task(0, job)
    task_folder.write_error(job, task_folder.FAILURE, RuntimeError("late"))
    assert task_folder.collect(job, 1) == ["done"]


def test_error_of_the_first_task_comes_to_the_driver(job):
    task_folder.write_tasks(job, fail, [5, 7], {})
    for number in (1, 0):
        with pytest.raises(OSError, match="disk"):
            task_folder.run_task(number, job)
    task_folder.write_error(job, task_folder.FAILURE, RuntimeError("Beam's"))
    with pytest.raises(OSError, match="disk 5") as told:
        task_folder.collect(job, 2)
    assert told.value.filename == "/disk/5"


def test_error_that_cannot_travel_is_told_by_its_text(job):
    task_folder.write_tasks(job, fail_oddly, [1], {})
    with pytest.raises(OddError):
        task_folder.run_task(0, job)
    task_folder.write_error(job, task_folder.FAILURE, RuntimeError("Beam's"))
    with pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        task_folder.collect(job, 1)


@pytest.mark.parametrize(
    "error",
    [ModuleNotFoundError("no tensorflow\nhere"), KeyError("x"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_error_that_is_not_for_the_user_is_told_in_one_line(job, error):
    task_folder.write_tasks(job, raise_it, [error], {})
    with pytest.raises(type(error)):
        task_folder.run_task(0, job)
    text = " ".join(str(error).split())
    expected = f"worker on {socket.gethostname()}: {type(error).__name__}" + (
        f": {text}" if text else ""
    )
    task_folder.write_error(job, task_folder.FAILURE, RuntimeError("Beam's"))
    with pytest.raises(RuntimeError) as told:
        task_folder.collect(job, 1)
    assert str(told.value) == expected


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (RuntimeError("Traceback\nthe reason\n"), "the reason"),
        (TimeoutError(), "TimeoutError"),
    ],
    ids=["text", "no text"],
)
def test_task_that_nobody_did_is_told(job, failure, told):
    task_folder.write_tasks(job, double, [1, 2], {})
    task_folder.run_task(0, job)
    task_folder.write_error(job, task_folder.FAILURE, failure)
    with pytest.raises(
        RuntimeError,
        match=rf"found 1 of 2 tasks undone \({told}\), .* --beam_options",
    ):
        task_folder.collect(job, 2)


def test_job_that_another_one_stopped_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(task_folder, "_LATE_SECONDS", 1)
    job = tmp_path / "job"
    job.mkdir()
    task_folder.write_tasks(str(job), double, [1, 2], {})
    task_folder.run_task(0, str(job))
    shutil.rmtree(job)
    with pytest.raises(RuntimeError, match=r"another one .* took them away"):
        task_folder.collect(str(job), 2)


def test_result_that_a_shared_disk_shows_late_is_waited_for(job, monkeypatch):
    task_folder.write_tasks(job, double, [1], {})
    monkeypatch.setattr(
        time, "sleep", lambda seconds: task_folder.run_task(0, job)
    )
    assert task_folder.collect(job, 1) == [2]


@pytest.mark.parametrize(
    ("package", "found"),
    [
        ("numpy", f"found numpy {np.__version__}, expected numpy 0.1,"),
        ("pcam_tfdata", f"found pcam_tfdata {pcam_tfdata.__version__}, exp"),
        ("no-such", "found no no-such, expected no-such 0.1,"),
    ],
    ids=["other", "of this package", "missing"],
)
def test_worker_of_other_versions_is_refused(job, package, found):
    expected = versions.find(["pillow"]) | {package: "0.1"}
    task_folder.write_tasks(job, double, [1], expected)
    with pytest.raises(
        RuntimeError, match=rf"worker on .*: {found}.*Install the same"
    ):
        task_folder.run_task(0, job)


def test_missing_package_is_told_before_the_function_needs_it(
    job, tmp_path, monkeypatch
):
    (tmp_path / "needy.py").write_text("def work(_): pass")
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("needy").work
    task_folder.write_tasks(job, work, [1], {"no-such": "0.1"})
    monkeypatch.setitem(sys.modules, "needy", None)
    with pytest.raises(RuntimeError, match="found no no-such"):
        task_folder.run_task(0, job)


def test_versions_of_this_process_are_those_expected():
    for of_job in (versions.of_conversion(), versions.of_prediction()):
        assert len(of_job) == 4
        versions.check(of_job)


@pytest.fixture
def task(tmp_path) -> write_shard.ShardTask:
    """A shard of 200 patches to write."""
    draw = np.random.default_rng(0)
    shape = (200, 96, 96, 3)
    names = np.array(
        write_patches(
            tmp_path / "files", draw.integers(0, 256, shape, np.uint8)
        ),
        np.bytes_,
    )
    paths = np.strings.add(names, b".tif")
    (tmp_path / "records").mkdir()
    return write_shard.ShardTask(
        path=str(tmp_path / "records" / "shard"),
        split="fold0",
        patches=listing.Listing(
            "train",
            np.zeros(len(names), np.int8),
            names,
            listing.ImageFiles(
                str(tmp_path / "files"), paths, np.zeros(len(paths), np.uint64)
            ),
        ),
        ids=names,
    )


def test_shard_that_is_written_twice_at_once_is_whole(task, tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        results = list(pool.map(write_shard.write_shard, [task] * 8))
    assert {result.shard for result in results} == {results[0].shard}
    assert manifest.hash_file(task.path) == results[0].shard.sha256
    left = sorted(path.name for path in (tmp_path / "records").iterdir())
    assert left == ["shard", "shard.csv", "shard.journal"]


def convert(*arguments: str):
    return run_pcam(
        "convert_to_tfrecords", "--input_dir=in", "--output_dir=out", *arguments
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--beam_options=--runner=x"], "expected it with beam alone"),
        (["--runner=beam", "--num_workers=2"], "Say it in --beam_options"),
        (["--runner=flink"], "--runner=flink"),
    ],
    ids=["without the runner", "num_workers", "runner"],
)
def test_flags_that_do_not_go_together(arguments, told):
    result = convert(*arguments)
    assert result.returncode in (1, 2)
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_beam_costs_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    for name in [n for n in sys.modules if n.startswith("apache_beam.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        RuntimeError, match=r"pip install 'pcam_tfdata\[beam\]'"
    ):
        beam_job.parse_options("")
