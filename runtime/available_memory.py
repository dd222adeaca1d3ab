"""How much memory a new process may take: what the machine has free, and what its control groups leave of that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes; None where this system does not tell.

    Args:
        root: folder in which `proc` and `sys` are looked for.
    """
    free = [_mem_available(root / "proc/meminfo"), *_left_in_groups(root)]
    known = [value for value in free if value is not None]
    return min(known) if known else _physical()


def _left_in_groups(root: Path) -> Iterator[int | None]:
    """What is left below the limit of this process's control group (version 2) and of every group around it."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    name = next((line[3:] for line in lines if line.startswith("0::/")), None)
    if name is None:
        return  # version 1 alone
    top = root / "sys/fs/cgroup"
    group = top / name.lstrip("/")
    for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
        yield _left(folder)


def _left(group: Path) -> int | None:
    """Bytes below a group's limit; None without one. Files that were read count as used until somebody needs room."""
    try:
        limit, used = ((group / name).read_text(encoding="ascii") for name in ("memory.max", "memory.current"))
        words = (line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        cached = next((int(value) for key, value in words if key == "inactive_file"), 0)
        return max(0, int(limit) - int(used) + cached)
    except (OSError, ValueError):
        return None  # no such group, or "max"


def _mem_available(path: Path) -> int | None:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
    except (OSError, ValueError):
        return None  # not Linux


def _physical() -> int | None:
    """The whole machine's, where nothing tells what is free."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None  # not a POSIX system
