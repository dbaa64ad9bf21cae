"""Which code runs: versions of packages, and what this one consists of."""

import hashlib
import importlib.metadata
import pathlib
import socket
from collections.abc import Iterable, Mapping

import pcam_tfdata

_OF_CONVERSION = ("numpy", "pillow", "google-crc32c")
_OF_PREDICTION = ("keras", "numpy", "tensorflow")


def find(packages: Iterable[str]) -> dict[str, str]:
    """Returns the version of this package and of others, by name."""
    return {name: _find(name) for name in (pcam_tfdata.__name__, *packages)}


def check(expected: Mapping[str, str]) -> None:
    """Refuses a worker whose packages are others than where a job was started.

    Args:
        expected: The version of each package, as `find` returns them.

    Raises:
        RuntimeError: one differs, or is not installed.
    """
    differing = {}
    for name, version in expected.items():
        try:
            here = f"{name} {_find(name)}"
        except importlib.metadata.PackageNotFoundError:
            here = f"no {name}"
        if here != f"{name} {version}":
            differing[here] = f"{name} {version}"
    if differing:
        raise RuntimeError(
            f"worker on {socket.gethostname()}: found {', '.join(differing)},"
            f" expected {', '.join(differing.values())}, as where the job was"
            " started. Install the same versions there."
        )


def of_conversion() -> dict[str, str]:
    """Returns the versions that the bytes of records depend on."""
    return find(_OF_CONVERSION)


def of_prediction() -> dict[str, str]:
    """Returns the versions that logits depend on."""
    return find(_OF_PREDICTION)


def of_training() -> dict[str, str]:
    """Returns the versions that weights depend on, and a hash of the sources."""
    return of_prediction() | {"pcam_tfdata of SHA-256": _hash_sources()}


def _find(name: str) -> str:
    if name == pcam_tfdata.__name__:
        return pcam_tfdata.__version__
    return importlib.metadata.version(name)


def _hash_sources() -> str:
    folder = pathlib.Path(pcam_tfdata.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
