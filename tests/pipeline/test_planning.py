"""Which way in is taken, and what is refused."""

import os
import subprocess
import sys

import pytest
import tensorflow as tf

from pcam_tfdata.pipeline import patch_source, planning, resident
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import memory

GIB = 1 << 30


def choose(free_memory=20 * GIB, **changes) -> tuple[str, str]:
    demand = {
        "input": "auto", "data_bytes": 6 * GIB, "largest_split_bytes": GIB,
        "shuffle_bytes": GIB // 8,
    }  # fmt: skip
    return planning.choose(planning.Demand(**demand | changes), free_memory)


@pytest.mark.parametrize(
    ("changes", "way_in"),
    [
        ({}, "mmap"),
        ({"free_memory": GIB // 16}, "mmap"),
        ({"free_memory": None}, "mmap"),
        ({"num_cpu_replicas": 1}, "mmap"),
        ({"is_remote": True}, "stream"),
    ],
    ids=str,
)
def test_auto_follows_from_where_the_records_are(changes, way_in):
    assert choose(**changes)[0] == way_in


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"input": "device", "num_cpu_replicas": 4}, "Take mmap"),
        ({"input": "device", "free_memory": GIB}, "Take mmap"),
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
    ids=str,
)
def test_what_does_not_fit_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        choose(**changes)


def test_what_fits_is_taken_as_asked():
    for way_in in ("mmap", "stream", "device"):
        assert choose(input=way_in, num_cpu_replicas=1)[0] == way_in


def test_gpus_of_others_refuse_nothing(records_dir, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 81000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    source = patch_source.Source(
        records_folder.open_folder(records_dir), ("fold0",), "device"
    )
    # Where there is no GPU, TensorFlow places it on the CPU.
    assert (
        patch_source.open_patches(source, ["/GPU:0"]).plan == "device, as asked"
    )


def fail_to_place(records_dir, monkeypatch, error: Exception) -> None:
    def refuse(_):
        raise error

    monkeypatch.setattr(resident.tf, "identity", refuse)
    source = patch_source.Source(
        records_folder.open_folder(records_dir), ("fold0",), "device"
    )
    patch_source.open_patches(source, ["/CPU:0"])


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "OOM when\nallocating"),
        tf.errors.InternalError(None, None, "Dst tensor is not initialized."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_full_device_ends_in_a_line(records_dir, monkeypatch, error):
    with pytest.raises(ValueError, match="found no room on /CPU:0") as caught:
        fail_to_place(records_dir, monkeypatch, error)
    assert len(str(caught.value).splitlines()) == 1


def test_broken_device_is_not_called_full(records_dir, monkeypatch):
    error = tf.errors.InternalError(None, None, "the driver has gone")
    with pytest.raises(tf.errors.InternalError):
        fail_to_place(records_dir, monkeypatch, error)


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


def test_freed_memory_is_kept_by_glibc_alone():
    code = (
        "import platform\n"
        "from pcam_tfdata.pipeline import buffers\n"
        "assert buffers.keep_freed_memory() == (\n"
        "    platform.libc_ver()[0] == 'glibc')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
