"""The report's chart of the error per layer, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from devil.calibration.verdict.svg import INK, LINE, QUIET, line, short, svg, text

GRAPH_COLOURS = {"vision": "#3b6fb6", "language": "#8a5fb0", "backbone": "#2f8f83", "grounder": "#c2702d"}

_LEFT, _WIDTH, _STEP, _FOOT = 330, 560, 17, 48  # pixels
_LONGEST = 46  # characters of a label that fit beside the bars
_DECADES = 8  # more have a label at every second one


@dataclass(frozen=True)
class Bar:
    """One layer.

    Attributes:
        label: its name.
        graph: which it belongs to.
        value: its error; one that is no finite number is the worst.
        kept: whether it stayed in higher precision; drawn hollow.
    """

    label: str
    graph: str
    value: float
    kept: bool


def worst_first(bars: Sequence[Bar]) -> list[Bar]:
    return sorted(bars, key=lambda bar: bar.value if math.isfinite(bar.value) else math.inf, reverse=True)


def bar_chart(bars: Sequence[Bar], unit: str) -> str:
    """Horizontal bars over a logarithmic axis, in the given order; empty where there is nothing to draw."""
    drawn = [bar.value for bar in bars if math.isfinite(bar.value) and bar.value > 0]
    if not bars:
        return ""
    low = math.floor(math.log10(min(drawn, default=0.1)))
    high = max(math.ceil(math.log10(max(drawn, default=1))), low + 1)
    height = _STEP * len(bars) + _FOOT + 8
    parts = []
    for power in range(low, high + 1):
        x = _LEFT + _WIDTH * (power - low) / (high - low)
        parts.append(line(x, 4, x, height - _FOOT, LINE))
        if high - low <= _DECADES or (power - low) % 2 == 0:
            parts.append(text(x, height - _FOOT + 18, f"10{_superscript(power)}", "middle", QUIET))
    parts.append(text(_LEFT + _WIDTH / 2, height - 8, f"{unit}, logarithmic", "middle", QUIET))
    for row, bar in enumerate(bars):
        parts += _bar(bar, 6 + row * _STEP, low, high, unit)
    return svg(_LEFT + _WIDTH + 30, height, parts, f"error per layer, {unit}")


def _bar(bar: Bar, top: float, low: int, high: int, unit: str) -> list[str]:
    """One row: the label, and the bar or what stands for it where it has no length."""
    colour = GRAPH_COLOURS.get(bar.graph, INK)
    label = text(_LEFT - 8, top + 10, short(bar.label, _LONGEST), "end", INK)
    if bar.value == 0:
        return [label, text(_LEFT + 4, top + 10, "0", "start", QUIET)]
    is_number = math.isfinite(bar.value)
    share = (math.log10(max(bar.value, 10.0**low)) - low) / (high - low) if is_number else 1
    fill = f'fill="white" stroke="{colour}"' if bar.kept else f'fill="{colour}"'
    told = f"{bar.value:.3g} {unit}" if is_number else "no number"
    title = f"<title>{escape(bar.label)}: {escape(told)}</title>"
    width = max(_WIDTH * share, 1.5)
    rect = f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="11" {fill}>{title}</rect>'
    note = [] if is_number else [text(_LEFT + 6, top + 10, "no number", "start", colour if bar.kept else "white")]
    return [label, rect, *note]


def _superscript(number: int) -> str:
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
