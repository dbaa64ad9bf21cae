"""Which input mode is taken, and what is refused."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import open_patches

from pcam_tfdata.pipeline import (
    buffer_pool,
    device_mode,
    input_choice,
    patch_source,
)
from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import memory

GIB = 1 << 30


def choose(
    mode: str = "auto",
    *,
    root: str = "/records",
    free_memory: int | None = 20 * GIB,
    num_cpus: int = 0,
    cache: str = "none",
) -> tuple[str, str]:
    """Chooses for 6 GiB of records in six splits."""
    size = GIB // tfrecord.layout(labeled=True).record_bytes
    shards = [
        records_folder.ShardFile(
            f"{root}/{k}", f"fold{k}", size, k * size, True
        )
        for k in range(6)
    ]
    selection = records_folder.Selection(tuple(shards))
    source = patch_source.Source(
        None, (), patch_source.InputOptions(mode, cache=cache)
    )
    devices = ["/CPU:0"] * num_cpus or ["/GPU:0"]
    return input_choice.choose(source, selection, devices, free_memory)


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, "mmap"),
        ({"free_memory": GIB // 16}, "mmap"),
        ({"free_memory": None}, "mmap"),
        ({"num_cpus": 1}, "mmap"),
        ({"root": "gs://records"}, "stream"),
    ],
    ids=str,
)
def test_auto_follows_from_where_the_records_are(changes, mode):
    assert choose(**changes)[0] == mode


@pytest.mark.parametrize(
    ("mode", "changes", "message"),
    [
        ("device", {"num_cpus": 4}, "Take mmap"),
        ("device", {"free_memory": GIB}, "Take mmap"),
        ("device", {"root": "gs://records"}, "not on a disk"),
        ("mmap", {"root": "gs://records"}, "not on a disk"),
        ("stream", {"free_memory": GIB // 16}, "--shuffle_megabytes"),
        (
            "stream",
            {"cache": "memory", "free_memory": 6 * GIB},
            "--cache=none",
        ),
        (
            "auto",
            {"root": "gs://records", "free_memory": GIB // 16},
            "--input=auto: found 64 MiB",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(mode, changes, message):
    with pytest.raises(ValueError, match=message):
        choose(mode, **changes)


def test_what_fits_is_taken_as_asked():
    for mode in ("mmap", "stream", "device"):
        assert choose(mode, num_cpus=1)[0] == mode


def test_gpus_of_others_refuse_nothing(records_dir, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 81000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    # Where there is no GPU, TensorFlow places it on the CPU.
    patches = open_patches(records_dir, "device", ["fold0"], ["/GPU:0"])
    assert patches.plan == "device, as asked"


def fail_to_place(records_dir, monkeypatch, error: Exception) -> None:
    def refuse(_):
        raise error

    monkeypatch.setattr(device_mode.tf, "identity", refuse)
    open_patches(records_dir, "device", ["fold0"], ["/CPU:0"])


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
    monkeypatch.setattr(memory, "_CGROUP_DIR", tmp_path)
    assert memory.free_memory() == GIB // 2 + GIB // 4
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_memory() != GIB // 2 + GIB // 4


def test_freed_memory_is_kept_by_glibc_alone():
    code = (
        "import platform\n"
        "from pcam_tfdata.pipeline import buffer_pool\n"
        "assert buffer_pool.keep_freed_memory() == (\n"
        "    platform.libc_ver()[0] == 'glibc')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_buffer_comes_again_once_nobody_refers_to_it():
    pool = buffer_pool.BufferPool((2, 3))
    first = pool.take()
    address = first.ctypes.data
    second = pool.take()
    assert second.ctypes.data != address
    kept = first
    del first
    assert pool.take().ctypes.data != address
    del kept
    again = pool.take()
    assert (again.ctypes.data, again.shape) == (address, (2, 3))
    assert address % 64 == 0


def test_datasets_use_buffers_again_that_nobody_keeps():
    pool = buffer_pool.BufferPool((4, 96, 96, 3))
    addresses = []

    def take(number: np.ndarray) -> np.ndarray:
        image = pool.take()
        image[:] = number
        addresses.append(image.ctypes.data)
        return image

    ds = tf.data.Dataset.range(20)
    ds = ds.map(lambda number: tf.numpy_function(take, [number], tf.uint8))
    for _ in ds:
        pass
    assert len(set(addresses)) < len(addresses)
    for number, image in enumerate(list(ds)):  # All are kept.
        assert (image.numpy() == number).all()
