"""How much memory a new process may take."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory() -> int:
    """Bytes that a new process may take: what the machine has free, or what is left of its control group's limit."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else min(free, int(limit) - int(used))
    except (OSError, StopIteration, ValueError):
        return free  # not Linux, or no control group with a limit
