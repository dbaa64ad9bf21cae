"""Processor time and memory of a process and its children, from /proc."""

import os
import time

_ROOT = "/proc"
_SECONDS_BETWEEN_SCANS = 0.5
_KILOBYTE = 1024
_KINDS = ("RssAnon:", "RssShmem:")  # RssFile is the page cache's.
# Fields of /proc/PID/stat, counted behind the name.
_PARENT = 1
_TIMES = slice(11, 15)  # Own user and system time, and of ended children.


class Watch:
    """Watches a process and whatever it starts.

    Args:
        pid: The process.

    Attributes:
        peak_bytes: Most anonymous and shared memory of any sample; set it to 0
            to begin anew. It stays 0 where there is no /proc.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pids = [pid]
        self._next_scan = 0.0
        self.peak_bytes = 0

    def sample(self) -> None:
        """Looks at the memory now."""
        if time.monotonic() > self._next_scan:
            self._pids = _list_tree(self._pid)
            # After the scan, which may take long where processes are many.
            self._next_scan = time.monotonic() + _SECONDS_BETWEEN_SCANS
        lines = [
            line for p in self._pids for line in _read_lines(f"{p}/status")
        ]
        sizes = [
            int(line.split()[1]) for line in lines if line.startswith(_KINDS)
        ]
        self.peak_bytes = max(self.peak_bytes, _KILOBYTE * sum(sizes))

    def cpu_seconds(self) -> float | None:
        """Returns the processor time used so far; None where there is no /proc."""
        stats = [
            stat for pid in _list_tree(self._pid) if (stat := _read_stat(pid))
        ]
        ticks = sum(int(tick) for stat in stats for tick in stat[_TIMES])
        return ticks / os.sysconf("SC_CLK_TCK") if stats else None


def read_cpu_model() -> str | None:
    """Returns the name of the processor, None where unknown."""
    for line in _read_lines("cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return None


def _list_tree(root: int) -> list[int]:
    """Returns a process and its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(_ROOT) if os.path.isdir(_ROOT) else ():
        if name.isdigit() and (stat := _read_stat(int(name))):
            children.setdefault(int(stat[_PARENT]), []).append(int(name))
    tree = [root]
    for pid in tree:  # Grows while it is walked.
        tree += children.get(pid, [])
    return tree


def _read_stat(pid: int) -> list[str]:
    # The name, in parentheses, may hold anything.
    return "".join(_read_lines(f"{pid}/stat")).rpartition(")")[2].split()


def _read_lines(name: str) -> list[str]:
    try:
        with open(os.path.join(_ROOT, name), encoding="utf-8") as file:
            return file.readlines()
    except (OSError, UnicodeDecodeError):
        return []  # No such system, or the process has just ended.
