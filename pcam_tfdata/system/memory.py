"""What the machine has to spare of its main memory."""

import pathlib
import re

_CGROUP_DIR = pathlib.Path("/sys/fs/cgroup")


_VERSIONS = (  # Files of a limit and of what is used, of version 2 and 1.
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def free_memory() -> int | None:
    """Returns the bytes that this process may still take, or None.

    What the kernel calls available, or less where a control group of this
    process has a limit. None where neither is known (macOS).
    """
    known = [1024 * n for n in _find(r"MemAvailable: +", "/proc/meminfo")]
    for folder in _groups("memory"):
        for of_limit, of_use in _VERSIONS:
            limit = _find("", folder / of_limit)  # None where it is "max".
            use = _find("", folder / of_use)
            if limit and use:
                # Pages of files, such as mapped shards, can be dropped.
                name = "(?:in)?active_file "
                droppable = _find(name, folder / "memory.stat")
                known.append(limit[0] - use[0] + sum(droppable))
    return min(known, default=None)


def find_cpu_quota() -> float | None:
    """Returns how many processors control groups let this process use, or None."""
    known = []
    for folder in _groups("cpu"):
        quota = _find("", folder / "cpu.cfs_quota_us")
        period = _find("", folder / "cpu.cfs_period_us")
        both = re.match(r"(\d+) (\d+)", _read(folder / "cpu.max"))
        if both:
            known.append(int(both[1]) / int(both[2]))
        elif quota and period:  # A quota of -1 has no digits at its start.
            known.append(quota[0] / period[0])
    return min(known, default=None)


def _groups(controller: str) -> set[pathlib.Path]:
    """Returns the folders of this process's control groups, and their parents.

    In a container its own group is often the root of what it sees.
    """
    pattern = rf"^(?:\d+:(?:[\w,]+,)?{controller}(?:,[\w,]+)?|0:):/(.*)"
    own = re.findall(pattern, _read("/proc/self/cgroup"), re.MULTILINE)
    return {
        top / folder
        for top in (_CGROUP_DIR, _CGROUP_DIR / controller)
        for group in map(pathlib.PurePath, (*own, ""))
        for folder in (group, *group.parents)
    }


def _find(name: str, path: str | pathlib.Path) -> list[int]:
    """Returns the numbers of a file that stand behind a name in their line."""
    found = re.findall(rf"^{name}(\d+)", _read(path), re.MULTILINE)
    return list(map(int, found))


def _read(path: str | pathlib.Path) -> str:
    try:
        return pathlib.Path(path).read_text(errors="surrogateescape")
    except OSError:
        return ""
