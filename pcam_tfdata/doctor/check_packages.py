"""Versions and imports, as the packages' metadata asks for them."""

import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from pcam_tfdata.doctor import finding, process

PACKAGE, _PYTHON = "pcam_tfdata", "python"
_SHOWN = (_PYTHON, "tensorflow", "keras", "numpy", "protobuf")
_EXTRAS = {
    "tensorboard": "pcam train --tensorboard",
    "lite": "pcam train --weights=imagenet with efficientnet_lite",
    "beam": "pcam convert_to_tfrecords --runner=beam (docs/beam.md)",
}


def list_requirements(owner: str, extra: str = "") -> list[Any]:
    """Returns what a package asks for; with an extra, what that adds."""
    from packaging import requirements

    asked = map(requirements.Requirement, metadata.requires(owner) or ())
    found = [one for one in asked if _holds(one, extra)]
    return [one for one in found if not extra or not _holds(one, "")]


def find_misfits(asked: list[Any]) -> dict[str, str]:
    """Returns the version, or empty, of what is not as asked for, by that."""
    versions = {one: _find_version(one.name) for one in asked}
    return {
        f"{one.name}{one.specifier}": version
        for one, version in versions.items()
        if not version or not one.specifier.contains(version, prereleases=True)
    }


def check_versions() -> Iterator[finding.Finding]:
    """Tells what is not as the package, and what it asks for, ask for."""
    from packaging import requirements

    bounds = metadata.metadata(PACKAGE)["Requires-Python"]
    asked = [requirements.Requirement(_PYTHON + bounds)]
    asked += list_requirements(PACKAGE)
    for one in asked[1:]:
        if _find_version(one.name):
            asked += list_requirements(one.name)
    misfits = find_misfits(asked)
    for wish, version in misfits.items():
        text = f"{version or 'not installed'}, expected {wish}"
        state = finding.WARNING if version else finding.FAILURE
        yield finding.judge("version", text, "version", state)
    if not misfits:
        text = ", ".join(f"{name} {_find_version(name)}" for name in _SHOWN)
        yield finding.judge("versions", f"{text}; all within their bounds")


def check_extras() -> Iterator[finding.Finding]:
    """Tells which optional packages are there; to have none is no fault."""
    for extra, use in _EXTRAS.items():
        misfits = find_misfits(asked := list_requirements(PACKAGE, extra))
        key, text = "version", f"lacks {', '.join(misfits)}"
        if not any(_find_version(one.name) for one in asked):
            key, text = "", f"not there, for {use}: pip install -e '.[{extra}]'"
        elif not misfits:
            key, text = "", "installed"
        yield finding.judge(f"extra [{extra}]", text, key, finding.WARNING)


def check_imports(answer: process.Answer) -> Iterator[finding.Finding]:
    """Tells which packages could not be imported."""
    trials = [name for name in answer.trials if name.startswith("import")]
    judged = [answer.judge(name, "import") for name in trials]
    wrong = [found for found in judged if found.state != finding.OK]
    key, line = finding.recognize(answer.errors)
    text, state = f"{len(trials)} packages", finding.WARNING
    text, key = (line, key) if key == "numpy" else (text, "")
    if not trials:
        last = answer.errors.strip().rpartition("\n")[2]
        text, state = f"none was tried: {answer.end}; {last}", finding.FAILURE
        key = "import"
    yield from wrong or [finding.judge("imports", text, key, state)]


def _holds(requirement: Any, extra: str) -> bool:
    marker = requirement.marker
    return marker is None or marker.evaluate({"extra": extra})


def _find_version(name: str) -> str:
    if name == _PYTHON:
        return platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
