"""Which way in is taken, and what is refused."""

import os
import subprocess
import sys
import time
import types

import pytest

from pcam_tfdata import memory
from pcam_tfdata.pipeline import planning

GIB = 1 << 30


def choose(seconds=1e-5, **changes) -> tuple[str, str]:
    demand = {
        "input": "auto", "data_bytes": 6 * GIB, "largest_split_bytes": GIB,
        "shuffle_bytes": GIB // 8,
    }  # fmt: skip
    there = {"free_memory": 20 * GIB}
    for name, value in changes.items():
        (there if name in ("free_memory", "free_device_memory",
                           "num_cpu_replicas") else demand)[name] = value  # fmt: skip
    return planning.choose(
        planning.Demand(**demand), planning.Machine(**there), lambda: seconds
    )


@pytest.mark.parametrize(
    ("changes", "way_in", "reason"),
    [
        ({}, "mmap", "a random read took 0.01 ms"),
        ({"seconds": 0.01}, "stream", "a random read took 10.00 ms"),
        ({"seconds": 0.01, "free_memory": GIB // 16}, "mmap", "not possible"),
        ({"free_device_memory": [80 * GIB] * 2}, "device", "every GPU"),
        ({"free_device_memory": [80 * GIB, 8 * GIB]}, "mmap", "random read"),
        ({"free_device_memory": [80 * GIB], "free_memory": GIB}, "mmap", ""),
        ({"num_cpu_replicas": 1}, "mmap", "random read"),
        ({"free_memory": None}, "mmap", "random read"),
        ({"is_remote": True}, "stream", "not on a disk"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_auto_plans_from_the_machine(changes, way_in, reason):
    found, told = choose(**changes)
    assert (found, reason in told) == (way_in, True)


@pytest.fixture
def busy_processor():
    """Leaves this thread a processor that another program wants too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # The other process inherits it.
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield
    other.kill()
    other.wait()
    os.sched_setaffinity(0, before)


def shard_of(read) -> types.SimpleNamespace:
    """Returns what is probed: a shard of which five in 64 reads are slow."""
    is_slow = iter([True] * 5 + [False] * 59)
    shard = types.SimpleNamespace(
        num_records=9, read_record=lambda _: next(is_slow) and read()
    )
    return types.SimpleNamespace(shards=[shard])


def work(seconds=0.5) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


LEAST = 0.5 * 5 / 64


def test_probe_leaves_out_what_another_program_made_slow(busy_processor):
    assert planning.probe(shard_of(work)) < LEAST / 2


def test_probe_counts_every_wait_for_a_disk(busy_processor):
    # One that does not wake at once, the processor being taken, is left out.
    assert planning.probe(shard_of(lambda: time.sleep(0.5))) > LEAST / 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"input": "device", "free_device_memory": [8 * GIB]},
            "8,192 MiB free",
        ),
        ({"input": "device"}, "could not learn from nvidia-smi"),
        ({"input": "device", "num_cpu_replicas": 4}, "Take mmap"),
        ({"input": "device", "is_remote": True}, "not on a disk"),
        ({"input": "mmap", "is_remote": True}, "not on a disk"),
        ({"input": "stream", "free_memory": GIB // 16}, "--shuffle_megabytes"),
        (
            {
                "input": "stream",
                "cache_in_memory": True,
                "free_memory": 6 * GIB,
            },
            "--cache=none",
        ),
        (
            {"is_remote": True, "free_memory": GIB // 16},
            "--input=auto: found 64 MiB",
        ),
        ({"input": "tape"}, "expected one of auto, mmap"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        choose(**changes)


def test_what_fits_is_taken_as_asked():
    for way_in in ("mmap", "stream", "device"):
        assert choose(input=way_in, num_cpu_replicas=1)[0] == way_in


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="Linux's /proc"
)
def test_free_memory_is_less_than_there_is():
    found = memory.free_memory()
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < found < total


def test_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    for name, text in (
        ("memory.max", f"{GIB}\n"),
        ("memory.current", f"{GIB // 2}\n"),
        (
            "memory.stat",
            f"anon 5\ninactive_file {GIB // 8}\nactive_file {GIB // 8}\n",
        ),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_CGROUP_DIR", str(tmp_path))
    assert memory.free_memory() == GIB // 2 + GIB // 4
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory() != GIB // 2 + GIB // 4


def test_gpu_memory_is_read_from_the_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory.free_gpu_memory() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 81000\necho 40000\n")
    tool.chmod(0o755)
    assert memory.free_gpu_memory() == [81000 << 20, 40000 << 20]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert memory.free_gpu_memory() is None


def test_freed_memory_is_kept_by_glibc_alone():
    code = (
        "import platform\n"
        "from pcam_tfdata.pipeline import buffers\n"
        "assert buffers.keep_freed_memory() == (\n"
        "    platform.libc_ver()[0] == 'glibc')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
