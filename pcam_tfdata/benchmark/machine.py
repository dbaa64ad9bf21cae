"""The machine and the programs behind a figure."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence

from pcam_tfdata.benchmark import usage
from pcam_tfdata.system import workers

_PACKAGES = ("numpy", "tensorflow", "keras")
_GIB = 1 << 30


def describe() -> dict[str, object]:
    """Returns processor, cores, memory and system; no name of the machine."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": usage.read_cpu_model() or platform.machine(),
        "cores": workers.count_cores(),
        "ram_gib": round(pages * page_bytes / _GIB, 1),
        "platform": platform.platform(),
    }


def list_gpus() -> list[str]:
    """Returns the name of each GPU that TensorFlow sees."""
    import tensorflow as tf

    return [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]


def list_versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str | None]:
    """Returns the version of Python and of each package, None if not there."""
    return {"python": platform.python_version()} | {
        package: find_version(package) for package in packages
    }


def find_version(package: str) -> str | None:
    """Returns the version of an installed package, None if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
