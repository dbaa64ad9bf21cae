"""What the machine has to spare of its main memory."""

import os

_CGROUP_DIR = "/sys/fs/cgroup"
# Limit, use, and the keys in memory.stat of what the kernel can drop: pages of
# files, such as mapped shards.
_CGROUP_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)


def free_memory() -> int | None:
    """Returns the bytes that this process may still take, or None.

    What the kernel calls available, or less where a control group of this
    process has a limit. None where neither is known (macOS).
    """
    known = [_available(), *map(_free_in_group, _groups())]
    return min((found for found in known if found is not None), default=None)


def _available() -> int | None:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _groups() -> list[str]:
    """Returns the folders of this process's control groups, and their parents.

    In a container its own group is often the root of what it sees.
    """
    folders = {_CGROUP_DIR, os.path.join(_CGROUP_DIR, "memory")}
    for line in _read("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = os.path.join(_CGROUP_DIR, controllers)
        while path not in ("/", ""):
            folders.add(top + path)
            path = os.path.dirname(path)
    return sorted(folders)


def _free_in_group(folder: str) -> int | None:
    for limit_file, use_file, keys in _CGROUP_FILES:
        limit = _read(os.path.join(folder, limit_file)).strip()
        use = _read(os.path.join(folder, use_file)).strip()
        if limit.isdigit() and use.isdigit():
            stat = _read(os.path.join(folder, "memory.stat"))
            pairs = dict(line.split(" ", 1) for line in stat.splitlines())
            droppable = sum(int(pairs.get(key, 0)) for key in keys)
            return int(limit) - int(use) + droppable
    return None


def _read(path: str) -> str:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
