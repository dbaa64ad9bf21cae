"""All checks, one after the other; those of this machine and of records."""

import contextlib
import os
import pathlib
import resource
import shutil
from collections.abc import Callable, Iterator
from typing import Any

from pcam_tfdata.doctor import (
    check_gpus,
    check_packages,
    finding,
    process,
    trials,
)
from pcam_tfdata.system import memory

SHM = "/dev/shm"
_GB, _LEAST_GB, _LEAST_FILES = 1e9, 2.0, 1024
_LEAST_SPEED = 100.0  # MB/s: 3,600 patches/s.
_DRIVER_SECONDS = 10.0


def examine(
    records_dir: str | None, seconds: float
) -> Iterator[finding.Finding]:
    """Yields what checks find; one that breaks does not end the others.

    Processes that are asked get so many seconds each.
    """
    yield from _guard(check_packages.check_versions)
    yield from _guard(check_packages.check_extras)
    smi = shutil.which("nvidia-smi")
    # By way of env, which starts, and says so if that is no program.
    query = ("env", smi or "true", *check_gpus.QUERY)
    with (
        process.start(*process.TRIALS) as ask,
        process.start(*query) as ask_driver,
    ):
        evidence = check_gpus.Evidence(
            ask_driver(min(seconds, _DRIVER_SECONDS)) if smi else None,
            ask(seconds),
            _has_card(pathlib.Path("/sys/bus/pci/devices")),
            os.environ.get("CUDA_VISIBLE_DEVICES"),
        )
    yield from _guard(check_packages.check_imports, evidence.training)
    yield from _guard(check_gpus.check_driver, evidence)
    yield from _guard(check_gpus.check_devices, evidence)
    yield from _guard(check_gpus.check_architecture, evidence)
    yield from _guard(check_gpus.check_steps, evidence)
    yield from _guard(check_limits, len(evidence["gpus"] or ()))
    if records_dir:  # Last, since it times a disk.
        with process.start(*process.TRIALS, records_dir) as ask:
            yield from _guard(check_records, ask(seconds))


def check_limits(num_gpus: int) -> Iterator[finding.Finding]:
    """Tells what there is, within the limits of control groups."""
    free: Any = memory.free_memory()
    seen, quota = len(os.sched_getaffinity(0)), memory.find_cpu_quota() or 0
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    least, shm, here = (
        1.0 if num_gpus > 1 else 0.05,
        _free_gb(SHM),
        _free_gb("."),
    )
    for key, text, is_low in (
        ("memory", f"{free / _GB:.1f} GB free", free < _LEAST_GB * _GB),
        ("processors", f"{seen}, limit {quota or 'none'}", 0 < quota < seen),
        ("open files", f"at most {most}", 0 <= most < _LEAST_FILES),
        ("disk", f"{here:.1f} GB to write in this folder", here < _LEAST_GB),
        ("shm", f"{shm:.1f} GB to write in {SHM}", shm < least),
    ):
        yield finding.judge(key, text, key if is_low else "", finding.WARNING)


def check_records(answer: process.Answer) -> Iterator[finding.Finding]:
    """Tells whether records are whole, their disk fast, and memory has room."""
    yield answer.judge(trials.RECORDS, "records")
    disk = answer.judge(trials.DISK, "slow disk", finding.NOT_CHECKED)
    speed = answer.trials.get(trials.DISK, {}).get("speed", _LEAST_SPEED)
    is_slow = disk.state == finding.OK and speed < _LEAST_SPEED
    slow = finding.judge(disk.name, disk.found, "slow disk", finding.WARNING)
    yield slow if is_slow else disk
    size = answer.trials.get(trials.RECORDS, {}).get("num_bytes", 0)
    if size and (free := memory.free_memory()):
        text = f"{size / _GB:.1f} GB of records, {free / _GB:.1f} GB free"
        key = "page cache" if size > free else ""
        yield finding.judge("page cache", text, key, finding.WARNING)


def _free_gb(folder: str) -> float:
    """Returns the room in a folder; none where it cannot be written to."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(folder).free / _GB
        return free if os.access(folder, os.W_OK) else 0.0
    return 0.0


def _guard(check: Callable, *arguments: object) -> Iterator[finding.Finding]:
    try:
        yield from check(*arguments)
    except Exception as error:
        text = f"the check broke: {type(error).__name__}: {error}"
        yield finding.judge(check.__name__, text, state=finding.NOT_CHECKED)


def _has_card(devices: pathlib.Path) -> bool:
    """Returns whether something of NVIDIA's is on the PCI bus."""
    with contextlib.suppress(OSError):
        vendors = [path.read_text() for path in devices.glob("*/vendor")]
        return "0x10de\n" in vendors
    return False
