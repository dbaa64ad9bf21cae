"""Conversions that end before their time, and those that go on from them."""

import errno
import itertools
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import standing
from conftest import (
    convert_folder,
    enlarge,
    run_pcam,
    small_disk,
    write_patches,
)

from pcam_tfdata.conversion import write_shard
from pcam_tfdata.records import manifest, verify
from pcam_tfdata.sources import listing
from pcam_tfdata.system import csv_files

NUM_PATCHES = 600
DEADLINE = 180


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> pathlib.Path:
    """A folder in Kaggle's layout that takes a while to convert."""
    root = tmp_path_factory.mktemp("kaggle")
    draw = np.random.default_rng(0)
    shape = (NUM_PATCHES, 96, 96, 3)
    names = write_patches(
        root / "train", draw.integers(0, 256, shape, np.uint8)
    )
    csv_files.write_csv(
        str(root / "train_labels.csv"),
        ("id", "label"),
        [(name, place % 2) for place, name in enumerate(names)],
    )
    return root


def flags(tree, output_dir, num_workers=1) -> list[str]:
    return [
        "convert_to_tfrecords", f"--input_dir={tree}",
        f"--output_dir={output_dir}", "--shard_megabytes=0.3",
        f"--num_workers={num_workers}",
    ]  # fmt: skip


def start(tree, output_dir, **options) -> subprocess.Popen:
    arguments = flags(tree, output_dir, num_workers=2)
    return subprocess.Popen(
        [sys.executable, "-m", "pcam_tfdata", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def timed(tree, tmp_path_factory) -> tuple[pathlib.Path, float]:
    """Records that were made without a disturbance, and how long it took."""
    output_dir = tmp_path_factory.mktemp("undisturbed") / "records"
    begin = time.monotonic()
    result = run_pcam(*flags(tree, output_dir, num_workers=2))
    assert result.returncode == 0, result.stderr
    return output_dir, time.monotonic() - begin


@pytest.fixture(scope="module")
def undisturbed(timed) -> pathlib.Path:
    return timed[0]


def hash_all(folder) -> dict[str, str]:
    return {p.name: manifest.hash_file(str(p)) for p in folder.iterdir()}


def list_finished(output_dir) -> dict[str, int]:
    """Returns the shards that a job left, and when they were written."""
    folder = pathlib.Path(f"{output_dir}.incomplete") / "records"
    return {
        path.name: path.with_suffix("").stat().st_mtime_ns
        for path in folder.glob("*.journal")
    }


def standing_job(tree, output_dir, num_shards, *more, num_workers=1):
    """Returns a context: a job that stands still with so many shards or more."""
    arguments = [*flags(tree, output_dir, num_workers), *more]
    return standing.conversion(arguments, output_dir, num_shards)


def kill_job(tree, output_dir, *more) -> None:
    """Has a job leave finished shards."""
    with standing_job(tree, output_dir, 3, *more) as process:
        standing.end(process, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(list_finished(output_dir)) >= 3


@pytest.fixture(scope="module")
def killed(tree, tmp_path_factory) -> pathlib.Path:
    """What a killed job left beside its output."""
    output_dir = tmp_path_factory.mktemp("killed") / "records"
    kill_job(tree, output_dir)
    return output_dir.with_suffix(".incomplete")


@pytest.fixture
def unfinished(killed, tmp_path) -> pathlib.Path:
    """The output of a killed job; what it left may be spoilt."""
    output_dir = tmp_path / "records"
    shutil.copytree(killed, output_dir.with_suffix(".incomplete"))
    return output_dir


def finish(tree, output_dir, undisturbed) -> str:
    """Converts to the end; the records must be those of `undisturbed`."""
    result = run_pcam(*flags(tree, output_dir))
    assert result.returncode == 0, result.stderr
    assert hash_all(output_dir) == hash_all(undisturbed)
    assert not os.path.exists(f"{output_dir}.incomplete")
    return result.stderr


@pytest.mark.parametrize(
    "num_kills", [2, pytest.param(20, marks=pytest.mark.long)]
)
def test_killed_jobs_end_as_an_undisturbed_one(
    tree, tmp_path, timed, num_kills
):
    undisturbed, seconds = timed
    output_dir = tmp_path / "records"
    draw = random.Random(0)
    for _ in range(num_kills):
        process = start(tree, output_dir, start_new_session=True)
        # Often while it starts: it is then further on at the next one.
        time.sleep(draw.uniform(0.1, 0.9) * seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if output_dir.exists():  # Its work was done: begin again.
            assert hash_all(output_dir) == hash_all(undisturbed)
            shutil.rmtree(output_dir)
    finish(tree, output_dir, undisturbed)
    assert verify.verify(str(undisturbed), num_workers=1) == []


def test_finished_shards_are_kept(tree, unfinished, undisturbed):
    left = list_finished(unfinished)
    assert "going on from what is finished" in finish(
        tree, unfinished, undisturbed
    )
    for name, written in left.items():
        shard = unfinished / name.removesuffix(".journal")
        assert shard.stat().st_mtime_ns == written


@pytest.mark.parametrize("part", ["", ".csv", ".journal"])
def test_damaged_shards_are_written_again(tree, unfinished, undisturbed, part):
    name = min(list_finished(unfinished)).removesuffix(".journal")
    path = pathlib.Path(f"{unfinished}.incomplete/records/{name}{part}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    finish(tree, unfinished, undisturbed)


def test_job_with_other_flags_keeps_nothing_wrong(tree, tmp_path, undisturbed):
    output_dir = tmp_path / "records"
    kill_job(tree, output_dir, "--seed=1")
    finish(tree, output_dir, undisturbed)


def test_overwrite_begins_anew(tree, unfinished):
    result = run_pcam(*flags(tree, unfinished), "--overwrite")
    assert result.returncode == 0
    assert "going on" not in result.stderr


def list_workers(process) -> list[int]:
    """Returns the processes of its workers; skips where nobody tells them."""
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    if not os.path.exists(children):
        pytest.skip("this system does not tell the children of a process")
    return [
        int(child)
        for child in pathlib.Path(children).read_text().split()
        if "spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_text()
    ]


def test_killed_worker_costs_one_line_and_no_shard(tree, tmp_path, undisturbed):
    output_dir = tmp_path / "records"
    with standing_job(tree, output_dir, 2, num_workers=2) as process:
        os.kill(list_workers(process)[0], signal.SIGKILL)
        output = standing.end(process, signal.SIGCONT)
    assert process.returncode == 1, output
    assert "A worker process was killed" in output
    assert "Traceback" not in output
    assert list_finished(output_dir)
    finish(tree, output_dir, undisturbed)


@pytest.mark.parametrize(
    ("num_workers", "number"),
    itertools.product((1, 2), (signal.SIGINT, signal.SIGTERM)),
)
def test_interrupted_job_goes_on(
    tree, tmp_path, undisturbed, num_workers, number
):
    output_dir = tmp_path / "records"
    with standing_job(tree, output_dir, 2, num_workers=num_workers) as process:
        output = standing.end(process, number)
    assert process.returncode == 128 + number, output
    assert "Traceback" not in output
    finish(tree, output_dir, undisturbed)


def test_second_job_on_one_output_is_refused(tree, tmp_path, undisturbed):
    output_dir = tmp_path / "records"
    with standing_job(tree, output_dir, 1) as first:
        second = run_pcam(*flags(tree, output_dir))
        output = standing.end(first, signal.SIGCONT)
    assert second.returncode == 1
    assert f"process {first.pid} is converting to this output" in second.stderr
    assert first.returncode == 0, output
    assert hash_all(output_dir) == hash_all(undisturbed)


def test_full_disk_costs_one_line_and_no_shard(tree, tmp_path, undisturbed):
    with small_disk(tmp_path / "disk", "10m") as disk:
        result = run_pcam(*flags(tree, disk / "records", num_workers=2))
        assert result.returncode == 1
        assert "No space left on device" in result.stderr
        assert "/records.incomplete/records/pcam-fold" in result.stderr
        assert "Traceback" not in result.stderr
        assert list_finished(disk / "records")
        enlarge(disk)
        finish(tree, disk / "records", undisturbed)


def test_file_that_may_not_grow_costs_one_line(tree, tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = start(tree, tmp_path / "records", preexec_fn=limit)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert "File too large" in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


class FailingImages(listing.ImageFiles):
    """Files on a disk of which one block cannot be read."""

    def take(self, rows):
        return FailingImages(self.folder, self.files[rows], self.stamps[rows])

    def read(self):
        for place, pixels in enumerate(super().read()):
            if place == 5:
                path = self.locate(place)
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            yield pixels


def test_read_error_is_no_bad_patch(tree, tmp_path):
    names = np.array([p.name.encode() for p in (tree / "train").iterdir()])
    task = write_shard.ShardTask(
        path=str(tmp_path / "shard"),
        split="fold0",
        patches=listing.Listing(
            "train",
            np.zeros(len(names), np.int8),
            names,
            FailingImages(
                str(tree / "train"), names, np.zeros(len(names), np.uint64)
            ),
        ),
        ids=None,
    )
    with pytest.raises(OSError, match="Input/output error") as told:
        write_shard.write_shard(task)
    assert told.value.filename == str(tree / "train" / names[5].decode())
    assert not (tmp_path / "shard").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_lost_permission_is_told(tree, tmp_path):
    path = next((tree / "train").iterdir())
    path.chmod(0)
    try:
        with pytest.raises(PermissionError):
            convert_folder(str(tree), str(tmp_path / "records"))
    finally:
        path.chmod(0o644)
