"""Versions of the programs that the bytes of records depend on."""

from importlib import metadata

import pcam_tfdata

_PACKAGES = ("numpy", "pillow", "google-crc32c")


def find() -> dict[str, str]:
    """Returns what is installed here, by name."""
    return {"pcam_tfdata": pcam_tfdata.__version__} | {
        package: metadata.version(package) for package in _PACKAGES
    }
