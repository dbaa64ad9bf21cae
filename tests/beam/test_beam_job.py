"""Conversion on Apache Beam's own local runners, beside the local one."""

import contextlib
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tables
import worker_tasks
from conftest import (
    convert_folder,
    enlarge,
    run_pcam,
    small_disk,
    write_patches,
)

from pcam_tfdata.beam import beam_job
from pcam_tfdata.conversion import write_shard
from pcam_tfdata.images import tiff
from pcam_tfdata.records import manifest, verify
from pcam_tfdata.system import csv_files, locks

pytestmark = pytest.mark.beam

PROCESSES = (
    "--runner=DirectRunner --direct_running_mode=multi_processing"
    " --direct_num_workers=2"
)
RETRYING = "--runner=BundleBasedDirectRunner"
NUM_PATCHES, NUM_TEST = 600, 40
DEADLINE = 120


def write_tree(root: pathlib.Path, num_patches: int) -> pathlib.Path:
    """Writes a folder in Kaggle's layout; returns it."""
    draw = np.random.default_rng(0)
    for split, table, count in (
        ("train", "train_labels.csv", num_patches),
        ("test", "sample_submission.csv", NUM_TEST),
    ):
        shape = (count, 96, 96, 3)
        images = draw.integers(0, 256, shape, np.uint8)
        names = write_patches(root / split, images)
        rows = [(name, place % 2) for place, name in enumerate(names)]
        csv_files.write_csv(str(root / table), ("id", "label"), rows)
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> pathlib.Path:
    return write_tree(tmp_path_factory.mktemp("kaggle"), NUM_PATCHES)


def flags(tree, output_dir, *more: str) -> list[str]:
    return [
        "convert_to_tfrecords", f"--input_dir={tree}",
        f"--output_dir={output_dir}", "--shard_megabytes=0.6", *more,
    ]  # fmt: skip


def on_beam(options: str = PROCESSES) -> list[str]:
    return ["--runner=beam", f"--beam_options={options}"]


def hash_all(folder) -> dict[str, str]:
    return {p.name: manifest.hash_file(str(p)) for p in folder.iterdir()}


@pytest.fixture(scope="module")
def local(tree, tmp_path_factory) -> dict[str, str]:
    """SHA-256 of each file that the local runner writes."""
    output_dir = tmp_path_factory.mktemp("local") / "records"
    result = run_pcam(*flags(tree, output_dir))
    assert result.returncode == 0, result.stderr
    return hash_all(output_dir)


def spoil(tree: pathlib.Path) -> None:
    """Makes two files unfit, takes one away, and changes pixels of one."""
    cut, other, missing, changed = sorted((tree / "train").iterdir())[:4]
    cut.write_bytes(cut.read_bytes()[:1000])
    other.write_bytes(b"no image")
    missing.unlink()
    image = tiff.read(str(changed)).copy()
    image[0, 0, 0] ^= 1
    changed.write_bytes(tiff.encode(image))


def rename(tree: pathlib.Path) -> None:
    """Gives patches names that are no hashes, which must all be read first."""
    rows = tables.read_csv(str(tree / "train_labels.csv"), ("id", "label"))
    for number, (name, _) in enumerate(rows):
        path = tree / "train" / f"{name}.tif"
        path.rename(path.with_name(f"train_{number}.tif"))
    csv_files.write_csv(
        str(tree / "train_labels.csv"),
        ("id", "label"),
        [(f"train_{n}", label) for n, (_, label) in enumerate(rows)],
    )
    shutil.rmtree(tree / "test")
    (tree / "sample_submission.csv").unlink()


@pytest.mark.parametrize(
    ("change", "more"),
    [
        (None, []),
        (spoil, ["--on_bad_patch=skip"]),
        (rename, ["--seed=3"]),
    ],
    ids=["sound", "bad patches", "names that are no hashes"],
)
def test_beam_writes_the_bytes_of_local(tree, tmp_path, change, more):
    if change:
        tree = shutil.copytree(tree, tmp_path / "kaggle")
        change(tree)
    results = [
        run_pcam(*flags(tree, tmp_path / name, *runner, *more))
        for name, runner in (("local", []), ("beam", on_beam()))
    ]
    for result in results:
        assert result.returncode == 0, result.stderr
    expected = hash_all(tmp_path / "local")
    assert sum(".tfrecord-" in name for name in expected) > 20
    assert hash_all(tmp_path / "beam") == expected
    assert not (tmp_path / "beam.incomplete").exists()
    assert verify.verify(str(tmp_path / "beam"), num_workers=1) == []


@pytest.fixture(autouse=True)
def _see_worker_tasks(monkeypatch) -> None:
    """Has Beam's workers find the functions of these tests."""
    folder = os.path.dirname(worker_tasks.__file__)
    monkeypatch.setenv("PYTHONPATH", folder, prepend=os.pathsep)


def map_tasks(function, tasks, folder, options=PROCESSES):
    tasks = list(tasks)
    return beam_job.map_tasks(
        function, tasks, num_patches=len(tasks), description="test",
        folder=str(folder), beam_options=options, expected={},
    )  # fmt: skip


def test_tasks_run_in_several_processes(tmp_path):
    pids = map_tasks(worker_tasks.find_process, range(10), tmp_path / "jobs")
    assert len(pids) == 10
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_folder", [True, False])
def test_folder_of_other_things_is_left_alone(tmp_path, is_folder):
    place = tmp_path / "jobs"
    mine = place / "thesis.tex" if is_folder else place
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("x")
    with pytest.raises(FileExistsError, match="other than jobs of Beam"):
        map_tasks(len, [""], place)
    assert mine.read_text() == "x"


def test_folder_on_a_disk_is_of_one_process_at_a_time(tmp_path):
    job = tmp_path / "jobs" / f"convert-{'0' * 16}"
    job.mkdir(parents=True)
    with locks.hold(str(tmp_path / "jobs" / "lock"), "works", "Wait."):
        with pytest.raises(RuntimeError, match="has jobs on Beam for this"):
            map_tasks(len, [], tmp_path / "jobs")
        assert job.is_dir()
    assert map_tasks(len, [], tmp_path / "jobs") == []
    assert list(tmp_path.iterdir()) == []


def test_bundle_that_fails_twice_and_then_succeeds(
    tree, tmp_path, local, monkeypatch
):
    monkeypatch.setattr(
        write_shard, "write_shard", worker_tasks.write_shard_at_last
    )
    monkeypatch.setenv(worker_tasks.FAILURES, str(tmp_path / "failures"))
    output_dir = tmp_path / "records"
    convert_folder(
        tree, output_dir, shard_megabytes=0.6, runner="beam", num_workers=0,
        beam_options=RETRYING,
    )  # fmt: skip
    assert len((tmp_path / "failures").read_text().splitlines()) == 2
    assert hash_all(output_dir) == local
    names = tables.read_csv(str(output_dir / "patches.csv"), ("source_name",))
    assert len(set(names)) == len(names) == NUM_PATCHES + NUM_TEST


def test_bundles_that_are_run_twice_change_nothing(tree, tmp_path, local):
    options = f"{PROCESSES} --direct_runner_bundle_repeat=1"
    result = run_pcam(*flags(tree, tmp_path / "records", *on_beam(options)))
    assert result.returncode == 0, result.stderr
    assert hash_all(tmp_path / "records") == local


# The way that jobs take to Flink and Spark; the service is in this process.
PORTABLE = (
    "--runner=PortableRunner --job_endpoint=embed --environment_type=LOOPBACK"
)


def test_job_through_a_job_service_writes_the_same(tree, tmp_path, local):
    result = run_pcam(*flags(tree, tmp_path / "records", *on_beam(PORTABLE)))
    assert result.returncode == 0, result.stderr
    assert hash_all(tmp_path / "records") == local


@pytest.mark.parametrize("options", [PROCESSES, PORTABLE])
def test_error_of_a_worker_costs_one_line(tree, tmp_path, options):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    result = run_pcam(
        *flags(tree, tmp_path / "records", *on_beam(options)),
        preexec_fn=limit,
    )
    assert result.returncode == 1
    (line,) = [
        line for line in result.stderr.splitlines() if "on Beam" not in line
    ]
    assert line.endswith(
        ": File too large. Check the path, its rights and the room on its disk."
    )
    assert "pcam-" in line
    assert list(tmp_path.iterdir()) == []


def test_bad_patches_are_told_as_by_local(tree, tmp_path):
    tree = shutil.copytree(tree, tmp_path / "kaggle")
    spoil(tree)
    told = [
        run_pcam(*flags(tree, tmp_path / "records", *runner))
        for runner in ([], on_beam())
    ]
    assert [result.returncode for result in told] == [1, 1]
    faults = [
        [line for line in result.stderr.splitlines() if "on Beam" not in line]
        for result in told
    ]
    assert len(faults[0]) == 5  # Four, and how many.
    assert faults[0] == faults[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kaggle"]


def test_full_disk_costs_one_line_and_no_shard(tree, tmp_path, local):
    with small_disk(tmp_path / "disk", "8m") as disk:
        result = run_pcam(*flags(tree, disk / "records", *on_beam()))
        assert result.returncode == 1
        assert "No space left on device" in result.stderr
        assert "Traceback" not in result.stderr
        assert list_finished(disk / "records")
        enlarge(disk)
        result = run_pcam(*flags(tree, disk / "records", *on_beam()))
        assert "going on from what is finished" in result.stderr
        assert hash_all(disk / "records") == local


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--direct_num_workers=many", "invalid int value: 'many'"),
        ("--runner=NoRunner", "NoRunner"),
        ("--runner=no.such.Runner", "no.such"),
        ("runner=DirectRunner", "expected --flag=value"),
        ("--runner='x", "No closing quotation"),
    ],
    ids=["value", "runner", "module", "word", "quote"],
)
def test_bad_options_cost_one_line(tree, tmp_path, options, told):
    result = run_pcam(*flags(tree, tmp_path / "records", *on_beam(options)))
    assert result.returncode == 1
    assert told in result.stderr
    assert "--beam_options" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_job_that_beam_refuses_costs_one_line(tree, tmp_path):
    options = "--runner=DataflowRunner --project=project"
    result = run_pcam(*flags(tree, tmp_path / "records", *on_beam(options)))
    assert result.returncode == 1
    (line,) = [
        line for line in result.stderr.splitlines() if "on Beam" not in line
    ]
    assert "Missing required option: region" in line
    assert "--beam_options" in line
    assert list(tmp_path.iterdir()) == []


def list_finished(output_dir) -> list[pathlib.Path]:
    """Returns what a job that was killed left."""
    folder = pathlib.Path(f"{output_dir}.incomplete")
    return sorted(folder.glob("records-*/*.journal"))


def start(
    tree, output_dir, *more: str, program: str | None = None
) -> subprocess.Popen:
    ours = ("-c", program) if program else ("-m", "pcam_tfdata")
    return subprocess.Popen(
        [
            sys.executable, *ours,
            *flags(tree, output_dir, *on_beam(), *more),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_until(condition, process: subprocess.Popen | None = None) -> None:
    """Waits for what a process does that must not end before."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if process is not None:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def list_workers(process: subprocess.Popen) -> list[int]:
    """Returns the processes of Beam's workers, of this session."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == process.pid:
            continue
        try:
            is_ours = os.getsid(int(folder.name)) == process.pid
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if is_ours and b"sdk_worker_main" in command:
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def large_tree(tmp_path_factory) -> pathlib.Path:
    """One that takes a few seconds."""
    return write_tree(tmp_path_factory.mktemp("large"), 4000)


@pytest.fixture(scope="module")
def large_local(large_tree, tmp_path_factory) -> dict[str, str]:
    output_dir = tmp_path_factory.mktemp("local") / "records"
    assert run_pcam(*flags(large_tree, output_dir)).returncode == 0
    return hash_all(output_dir)


def go_on(tree, output_dir, expected: dict[str, str]) -> None:
    """Converts to the end; shards that are finished are left as they are."""
    left = {
        path.stem: path.stat().st_mtime_ns for path in list_finished(output_dir)
    }
    assert left
    result = run_pcam(*flags(tree, output_dir, *on_beam()))
    assert result.returncode == 0, result.stderr
    assert "going on from what is finished" in result.stderr
    assert hash_all(output_dir) == expected
    assert not os.path.exists(f"{output_dir}.incomplete")


def test_killed_driver_takes_its_workers_along_and_goes_on(
    large_tree, tmp_path, large_local
):
    output_dir = tmp_path / "records"
    process = start(large_tree, output_dir)
    wait_until(lambda: len(list_finished(output_dir)) > 3, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not list_workers(process))
    assert not output_dir.exists()
    go_on(large_tree, output_dir, large_local)


def test_job_that_waits_for_a_killed_worker_goes_on(
    large_tree, tmp_path, large_local
):
    # Beam's local runner waits for ever; engines give the task to another one.
    output_dir = tmp_path / "records"
    process = start(large_tree, output_dir)
    wait_until(lambda: len(list_finished(output_dir)) > 3, process)
    os.kill(list_workers(process)[-1], signal.SIGKILL)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    go_on(large_tree, output_dir, large_local)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_job_goes_on(large_tree, tmp_path, large_local, number):
    output_dir = tmp_path / "records"
    process = start(large_tree, output_dir)
    wait_until(lambda: len(list_finished(output_dir)) > 3, process)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    go_on(large_tree, output_dir, large_local)


# A second worker starts while the job tidies up because of a signal.
SLOW_STARTS = """
import subprocess, sys, time
from pcam_tfdata.system import files
from pcam_tfdata.cli import main

class SlowPopen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        time.sleep(1)
        super().__init__(*arguments, **options)

def remove_slowly(path):
    time.sleep(2)
    remove_folder(path)

subprocess.Popen = SlowPopen
files.remove_folder, remove_folder = remove_slowly, files.remove_folder
main.run(sys.argv[1:])
"""


def test_driver_that_ends_while_workers_start_takes_them_along(
    large_tree, tmp_path
):
    process = start(large_tree, tmp_path / "records", program=SLOW_STARTS)
    wait_until(lambda: list_workers(process), process)
    os.kill(process.pid, signal.SIGTERM)
    # They would keep its stdout open.
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "Traceback" not in output
    assert list_workers(process) == []


def test_other_plan_begins_in_a_folder_of_its_own(large_tree, tmp_path):
    output_dir = tmp_path / "records"
    process = start(large_tree, output_dir)
    wait_until(lambda: len(list_finished(output_dir)) > 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (before,) = {path.parent for path in list_finished(output_dir)}
    seed = "--seed=1"
    process = start(large_tree, output_dir, seed)
    found = set()  # What still runs of the killed job writes into `before`.
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # It is removed now.
            found |= {path.parent for path in list_finished(output_dir)}
        time.sleep(0.01)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert len(found) == 2
    assert before in found
    local = tmp_path / "local"
    assert run_pcam(*flags(large_tree, local, seed)).returncode == 0
    assert hash_all(output_dir) == hash_all(local)


@pytest.fixture(scope="module")
def predict(tmp_path_factory) -> list[str]:
    """The command that predicts with a trained network, but for the output."""
    root = tmp_path_factory.mktemp("trained")
    records_dir, run_dir = root / "records", root / "run"
    tree = write_tree(root / "kaggle", 64)
    for command in (
        [*flags(tree, records_dir), "--shard_megabytes=0.1"],
        ["train", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
         "--model=small_cnn", "--batch_size=16", "--epochs=1"],
    ):  # fmt: skip
        result = run_pcam(*command)
        assert result.returncode == 0, result.stderr
    return ["predict", f"--records_dir={records_dir}", f"--run_dir={run_dir}"]


def test_prediction_on_beam_is_that_of_one_process(predict, tmp_path):
    found = []
    for name, more in (("one", []), ("beam", on_beam())):
        path = tmp_path / name / "scores.csv"
        path.parent.mkdir()
        result = run_pcam(*predict, f"--output_csv={path}", *more)
        assert result.returncode == 0, result.stderr
        assert os.listdir(path.parent) == ["scores.csv"]
        found.append(path.read_bytes())
    assert found[0].count(b"\n") == NUM_TEST + 1
    assert found[0] == found[1]


def test_missing_sample_is_told_before_anything_is_predicted(predict, tmp_path):
    result = run_pcam(
        *predict, f"--output_csv={tmp_path / 'scores.csv'}",
        f"--sample_submission={tmp_path / 'nosuch.csv'}", *on_beam(),
    )  # fmt: skip
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "nosuch.csv" in line
    assert list(tmp_path.iterdir()) == []
