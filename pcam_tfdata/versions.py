"""Which code runs: versions of packages, and what this one consists of."""

import hashlib
import importlib.metadata
import pathlib
from collections.abc import Iterable

import pcam_tfdata

_OF_CONVERSION = ("numpy", "pillow", "google-crc32c")
_OF_TRAINING = ("keras", "numpy", "tensorflow")


def find(packages: Iterable[str]) -> dict[str, str]:
    """Returns the version of this package and of others, by name."""
    return {"pcam_tfdata": pcam_tfdata.__version__} | {
        package: importlib.metadata.version(package) for package in packages
    }


def of_conversion() -> dict[str, str]:
    """Returns the versions that the bytes of records depend on."""
    return find(_OF_CONVERSION)


def of_training() -> dict[str, str]:
    """Returns the versions that weights depend on, and a hash of the sources."""
    return find(_OF_TRAINING) | {"pcam_tfdata of SHA-256": _hash_sources()}


def _hash_sources() -> str:
    folder = pathlib.Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
