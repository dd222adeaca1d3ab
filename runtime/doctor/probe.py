"""Questions asked in a process of their own: what is broken enough to hang or abort must not take the doctor along."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from devil.signals import signal_name

TIMEOUT_SECONDS = 120  # importing TensorRT from a cold disk takes most of a minute


class ProbeError(Exception):
    """The process gave no answer; the message says in words why."""


def ask(arguments: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> Any:
    """The JSON value that `python ARGUMENTS…` prints as its last line.

    Raises:
        ProbeError: it failed, died, took too long, or said something else.
    """
    try:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, errors="replace", timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"gave no answer within {timeout:g} s") from None
    if done.returncode < 0:
        raise ProbeError(f"the process died of {signal_name(-done.returncode)}")
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or ["it said nothing"]
    if done.returncode:
        raise ProbeError(" ".join(lines[-1].split()))
    try:
        return json.loads(lines[-1])
    except ValueError:
        raise ProbeError(f"said {lines[-1]!r}") from None
