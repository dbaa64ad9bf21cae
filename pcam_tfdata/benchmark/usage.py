"""Processor time and memory of a process and its children, from /proc."""

import os
import time
from collections.abc import Iterable

_ROOT = "/proc"
_SECONDS_BETWEEN_SCANS = 0.5
_KILOBYTE = 1024
_KINDS = ("RssAnon:", "RssShmem:")  # RssFile is the page cache's.
# Fields of /proc/PID/stat, counted behind the name.
_PARENT = 1
_TIMES = slice(11, 15)  # Own user and system time, and of ended children.


class Watch:
    """Watches a process and whatever it starts.

    Where there is no /proc, all it tells is None.

    Args:
        pid: The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pids = [pid]
        self._next_scan = 0.0
        self._peak_bytes = 0
        self._has_proc = os.path.isdir(os.path.join(_ROOT, "self"))

    @property
    def peak_bytes(self) -> int | None:
        """Most memory since `reset`: anonymous and shared, without files."""
        return self._peak_bytes if self._has_proc else None

    def reset(self) -> None:
        """Forgets the peak."""
        self._peak_bytes = 0

    def sample(self) -> None:
        """Looks at the memory now."""
        if not self._has_proc:
            return
        if time.monotonic() > self._next_scan:
            self._pids = _list_tree(self._pid)
            # After the scan, which may take long where processes are many.
            self._next_scan = time.monotonic() + _SECONDS_BETWEEN_SCANS
        found = sum(_resident_bytes(pid) for pid in self._pids)
        self._peak_bytes = max(self._peak_bytes, found)

    def cpu_seconds(self) -> float | None:
        """Returns the processor time used so far, by all of them."""
        if not self._has_proc:
            return None
        times = [_read_stat(pid) for pid in _list_tree(self._pid)]
        ticks = sum(int(tick) for stat in times for tick in stat[_TIMES])
        return ticks / os.sysconf("SC_CLK_TCK")


def read_cpu_model() -> str | None:
    """Returns the name of the processor, None where unknown."""
    for line in _read_lines("cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return None


def _list_tree(root: int) -> list[int]:
    """Returns a process and its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(_ROOT):
        if name.isdigit() and (stat := _read_stat(int(name))):
            children.setdefault(int(stat[_PARENT]), []).append(int(name))
    tree = [root]
    for pid in tree:  # Grows while it is walked.
        tree += children.get(pid, [])
    return tree


def _read_stat(pid: int) -> list[str]:
    lines = list(_read_lines(f"{pid}/stat"))
    # The name, in parentheses, may hold anything.
    return "".join(lines).rpartition(")")[2].split()


def _resident_bytes(pid: int) -> int:
    return _KILOBYTE * sum(
        int(line.split()[1])
        for line in _read_lines(f"{pid}/status")
        if line.startswith(_KINDS)
    )


def _read_lines(name: str) -> Iterable[str]:
    try:
        with open(os.path.join(_ROOT, name), encoding="utf-8") as file:
            return file.readlines()
    except (OSError, UnicodeDecodeError):
        return []  # No such system, or the process has just ended.
