"""Processor time and memory of a process and its children, from /proc."""

import os

_ROOT = "/proc"
_KILOBYTE = 1024
_KINDS = ("RssAnon:", "RssShmem:")  # RssFile is the page cache's.
# Fields of /proc/PID/stat, counted behind the name.
_PARENT = 1
_TIMES = slice(11, 15)  # Own user and system time, and of ended children.


def read_usage(root: int) -> tuple[float, int]:
    """Returns the use of a process and its descendants, summed over them.

    Args:
        root: Number of the process.

    Returns:
        Seconds of the processor so far, and bytes of anonymous and shared
        memory now; 0 where there is no /proc.
    """
    stats = {}
    for name in os.listdir(_ROOT) if os.path.isdir(_ROOT) else ():
        if name.isdigit() and (lines := read_lines(f"{name}/stat")):
            # The name, in parentheses, may hold anything.
            stats[int(name)] = "".join(lines).rpartition(")")[2].split()
    tree = [root] if root in stats else []
    for pid in tree:  # Grows while it is walked.
        tree += [p for p, stat in stats.items() if int(stat[_PARENT]) == pid]
    ticks = [int(tick) for pid in tree for tick in stats[pid][_TIMES]]
    kilobytes = [
        int(line.split()[1])
        for pid in tree
        for line in read_lines(f"{pid}/status")
        if line.startswith(_KINDS)
    ]
    return sum(ticks) / os.sysconf("SC_CLK_TCK"), _KILOBYTE * sum(kilobytes)


def read_lines(name: str) -> list[str]:
    """Returns the lines of a file of /proc; none where it is not there."""
    try:
        with open(os.path.join(_ROOT, name), encoding="utf-8") as file:
            return file.readlines()
    except (OSError, UnicodeDecodeError):
        return []  # No such system, or the process has just ended.
