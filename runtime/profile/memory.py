"""What this process holds in memory, as Linux tells it."""

from __future__ import annotations

import re
from pathlib import Path

_STATUS = Path("/proc/self/status")


def resident_memory() -> int | None:
    """Bytes in memory now; None where the system does not tell."""
    return _field("VmRSS")


def peak_memory() -> int | None:
    """The most bytes that were ever in memory; None where the system does not tell."""
    return _field("VmHWM")


def _field(name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s*(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None
