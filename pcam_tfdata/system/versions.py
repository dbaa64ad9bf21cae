"""Which code runs: versions of packages, and what this one consists of."""

import hashlib
import importlib.metadata
import pathlib
from collections.abc import Iterable, Mapping

import pcam_tfdata

_OF_CONVERSION = ("numpy", "pillow", "google-crc32c")
_OF_PREDICTION = ("keras", "numpy", "tensorflow")


def find(packages: Iterable[str]) -> dict[str, str]:
    """Returns the version of this package and of others, by name."""
    return {name: _find(name) for name in (pcam_tfdata.__name__, *packages)}


def list_differing(expected: Mapping[str, str]) -> dict[str, str | None]:
    """Returns what is here instead of some versions; None for what is not."""
    found = {}
    for name, version in expected.items():
        try:
            here = _find(name)
        except importlib.metadata.PackageNotFoundError:
            here = None
        if here != version:
            found[name] = here
    return found


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
