"""What the machine has to spare of its main memory."""

import pathlib
import re

_CGROUP_DIR = pathlib.Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Returns the bytes that this process may still take, or None.

    What the kernel calls available, or less where a control group (version 2)
    of this process has a limit. None where neither is known (macOS).
    """
    known = [1024 * n for n in _find(r"MemAvailable: +", "/proc/meminfo")]
    for folder in _groups():
        limit = _find("", folder / "memory.max")  # None where it is "max".
        use = _find("", folder / "memory.current")
        if limit and use:
            # Pages of files, such as mapped shards, can be dropped.
            droppable = _find("(?:in)?active_file ", folder / "memory.stat")
            known.append(limit[0] - use[0] + sum(droppable))
    return min(known, default=None)


def _groups() -> set[pathlib.Path]:
    """Returns the folders of this process's control group, and its parents.

    In a container its own group is often the root of what it sees.
    """
    own = re.search("^0::/(.*)", _read("/proc/self/cgroup"), re.MULTILINE)
    group = pathlib.PurePath(own[1] if own else "")
    return {_CGROUP_DIR / folder for folder in (group, *group.parents)}


def _find(name: str, path: str | pathlib.Path) -> list[int]:
    """Returns the numbers of a file that stand behind a name in their line."""
    found = re.findall(rf"^{name}(\d+)", _read(path), re.MULTILINE)
    return list(map(int, found))


def _read(path: str | pathlib.Path) -> str:
    try:
        return pathlib.Path(path).read_text(errors="surrogateescape")
    except OSError:
        return ""
