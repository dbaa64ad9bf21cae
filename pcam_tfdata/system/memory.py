"""What the machine has to spare of its main memory."""

import os
import pathlib
import re

_CGROUP_DIR = "/sys/fs/cgroup"
# Of both kinds of control groups: limit, use, and the prefix in memory.stat of what
# the kernel can drop: pages of files, such as mapped shards.
_CGROUP_FILES = (
    ("memory.max", "memory.current", ""),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)


def free_memory() -> int | None:
    """Returns the bytes that this process may still take, or None.

    What the kernel calls available, or less where a control group of this
    process has a limit. None where neither is known (macOS).
    """
    known = [
        1024 * int(kilobytes)
        for kilobytes in re.findall(
            r"^MemAvailable: +(\d+)", _read("/proc/meminfo"), re.MULTILINE
        )
    ]
    for folder in _groups():
        for limit_file, use_file, prefix in _CGROUP_FILES:
            limit = _read(os.path.join(folder, limit_file)).strip()
            use = _read(os.path.join(folder, use_file)).strip()
            if limit.isdigit() and use.isdigit():
                droppable = re.findall(
                    rf"^{prefix}(?:in)?active_file (\d+)",
                    _read(os.path.join(folder, "memory.stat")),
                    re.MULTILINE,
                )
                known.append(int(limit) - int(use) + sum(map(int, droppable)))
    return min(known, default=None)


def _groups() -> set[str]:
    """Returns the folders of this process's control groups, and their parents.

    In a container its own group is often the root of what it sees.
    """
    folders = {_CGROUP_DIR, os.path.join(_CGROUP_DIR, "memory")}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = os.path.join(_CGROUP_DIR, controllers)
            group = pathlib.PurePosixPath(path.lstrip("/"))
            folders |= {os.path.join(top, g) for g in (group, *group.parents)}
    return folders


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(errors="surrogateescape")
    except OSError:
        return ""
