"""Signals by name."""

from __future__ import annotations

import signal


def signal_name(number: int) -> str:
    """ "SIGKILL" for 9, "SIGRTMIN+3" for a real-time signal, which `signal.Signals` mostly does not know."""
    first, last = getattr(signal, "SIGRTMIN", None), getattr(signal, "SIGRTMAX", None)
    if first is not None and first <= number <= last:
        return f"SIGRTMIN+{number - first}" if number > first else "SIGRTMIN"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
