"""Reading the span out of the language model's answer (reference §2.11)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

HALF_PRINTED = 0.05 + 1e-6  # seconds; half of the last digit that prompt and answer print, and rounding

_NUMBER = r"(\d+(?:\.\d+)?)\s*(?:s\b|sec\b|seconds?\b)?"
_PATTERNS = (
    re.compile(rf"\bfrom\s+{_NUMBER}\s+to\s+{_NUMBER}", re.IGNORECASE),
    re.compile(rf"\bbetween\s+{_NUMBER}\s+and\s+{_NUMBER}", re.IGNORECASE),
    re.compile(rf"{_NUMBER}\s*[-–]\s*{_NUMBER}", re.IGNORECASE),
)


@dataclass(frozen=True)
class Span:
    """A stretch of a video, in seconds, 0 ≤ start ≤ end."""

    start: float
    end: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.end) and 0 <= self.start <= self.end):
            raise ValueError(f"not a span: {self.start} to {self.end}")

    @property
    def duration(self) -> float:
        return self.end - self.start


def parse_span(text: str) -> Span | None:
    """The first span told by `from A to B`, else `between A and B`, else `A - B`; reversed ends are swapped.

    Returns:
        The span as written (not clamped to any video), or None where the text tells none.
    """
    for pattern in _PATTERNS:
        if found := pattern.search(text):
            first, second = sorted(float(number) for number in found.groups())
            return Span(first, second) if math.isfinite(second) else None
    return None
