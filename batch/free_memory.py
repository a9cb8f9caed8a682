"""Says how much memory this process may still take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

GROUPS = (
    # A container's limit, its use, and what of that is cache which the kernel gives back.
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
"""Files of control groups, version 2 and 1, and the field of their `memory.stat`."""


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take; None where the system does not tell."""
    try:
        free = _fields(root / "proc/meminfo")["MemAvailable:"] << 10
    except (OSError, KeyError, ValueError):
        return None
    for limit, used, cache in GROUPS:
        group = root / "sys/fs/cgroup"
        with suppress(OSError, KeyError, ValueError):  # no such group, or `max`: no limit
            left = int((group / limit).read_text()) - int((group / used).read_text())
            free = min(free, left + _fields((group / used).with_name("memory.stat"))[cache])
    return free


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file with a name and a number in each line."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1}
