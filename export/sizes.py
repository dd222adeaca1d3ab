"""Sizes of frames as flags write them."""

from __future__ import annotations

import re

from devil.errors import UsageError

_SIZE = re.compile(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})")


def parsed_size(text: str, flag: str) -> tuple[int, int]:
    """(height, width) in pixels of "HxW".

    Raises:
        UsageError: it is not of that form.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise UsageError(f"frame size {text!r} is not HxW", f"write for example {flag} 360x640")
    return int(match[1]), int(match[2])
