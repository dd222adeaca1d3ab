"""Text, ticks and frames that the report's charts share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

INK, QUIET, LINE = "#1c1c1e", "#6b6b70", "#e3e3e6"
_FONT = 'font-family="system-ui, sans-serif" font-size="12"'


def text(x: float, y: float, words: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {_FONT}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str = LINE, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'


def svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def short(words: str, most: int) -> str:
    """At most so many characters, the middle left out: names of layers differ at their ends."""
    if len(words) <= most:
        return words
    tail = most * 2 // 3
    return f"{words[: most - tail - 1]}…{words[-tail:]}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about so many."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough * 0.999)
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
