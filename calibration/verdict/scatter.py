"""The report's chart of accuracy against speed, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from devil.calibration.verdict.svg import INK, LINE, QUIET, line, short, svg, text, ticks

_LEFT, _TOP, _WIDTH, _HEIGHT, _KEY = 64, 22, 560, 300, 370  # pixels
_LONGEST = 48  # characters of a name that fit into the key
_RESULT, _OTHER = "#b3261e", "#3b6fb6"
_BADGE = 14  # pixels that a number takes
# Where a number may stand beside its point, in pixels from it to the number's middle; the nearest free place is taken.
_PLACES = [(x, y) for distance in range(15, 150, 14) for y in (-distance, distance) for x in (9, -9)]


@dataclass(frozen=True)
class Point:
    """One bundle: milliseconds per clip, a change with its interval, and whether it is the one that was asked for."""

    label: str
    milliseconds: float
    change: float
    low: float
    high: float
    is_result: bool


def scatter(points: Sequence[Point], across: str, upwards: str, limit: float | None = None) -> str:
    """Changes upwards, milliseconds across; whiskers are the intervals, numbers are explained beside the chart.

    Args:
        across, upwards: what the axes say.
        limit: the least change that is let through, drawn as a line.
    """
    most = max(max(point.milliseconds for point in points) * 1.08, 1e-9)
    shown = [0.0, *(value for point in points for value in (point.low, point.high))] + ([limit] if limit else [])
    spread = max(max(shown) - min(shown), 0.1)
    low, high = min(shown) - 0.08 * spread, max(shown) + 0.08 * spread

    def place(milliseconds: float, change: float) -> tuple[float, float]:
        return _LEFT + _WIDTH * milliseconds / most, _TOP + _HEIGHT * (high - change) / (high - low)

    parts = [f'<rect x="{_LEFT}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="{LINE}"/>']
    for value in ticks(low, high):
        _, y = place(0, value)
        parts += [
            line(_LEFT, y, _LEFT + _WIDTH, y),
            text(_LEFT - 8, y + 4, f"{value:+.3g}" if value else "0", "end", QUIET),
        ]
    for value in ticks(0, most):
        parts.append(text(place(value, 0)[0], _TOP + _HEIGHT + 18, f"{value:g}", "middle", QUIET))
    if limit is not None:
        _, y = place(0, limit)
        parts.append(line(_LEFT, y, _LEFT + _WIDTH, y, _RESULT, ' stroke-dasharray="5 4"'))
        parts.append(text(_LEFT + 6, y - 4, "budget", "start", _RESULT))
    places = [place(point.milliseconds, point.change) for point in points]
    for number, (point, (x, y), badge) in enumerate(zip(points, places, badges(places), strict=True), 1):
        colour = _RESULT if point.is_result else _OTHER
        upper, lower = place(0, point.high)[1], place(0, point.low)[1]
        title = f"<title>{escape(point.label)}</title>"
        parts += [
            line(x, upper, x, lower, colour, ' stroke-opacity=".45"'),
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}">{title}</circle>',
            text(badge[0], badge[1] + 4, str(number), "middle", INK),
            text(_LEFT + _WIDTH + 34, _TOP + 14 + 18 * number, str(number), "end", colour),
            text(_LEFT + _WIDTH + 42, _TOP + 14 + 18 * number, short(point.label, _LONGEST), "start", INK),
        ]
    height = max(_TOP + _HEIGHT + 46, _TOP + 24 + 18 * len(points))
    parts.append(text(_LEFT + _WIDTH / 2, _TOP + _HEIGHT + 38, across, "middle", QUIET))
    parts.append(text(_LEFT, _TOP - 8, upwards, "start", QUIET))
    return svg(_LEFT + _WIDTH + _KEY, height, parts, f"{upwards} against {across}")


def badges(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The middle of each point's number: beside it, and clear of the other points and of the numbers so far."""
    taken = list(places)
    found = []
    for x, y in places:
        tried = [(x + right, y + down) for right, down in _PLACES]
        inside = [(left, top) for left, top in tried if _TOP + 8 < top < _TOP + _HEIGHT - 8 and left > _LEFT + 8]
        free = (one for one in inside if all(_apart(one, other) for other in taken))
        found.append(next(free, tried[0]))
        taken.append(found[-1])
    return found


def _apart(one: tuple[float, float], two: tuple[float, float]) -> bool:
    return abs(one[0] - two[0]) >= _BADGE or abs(one[1] - two[1]) >= _BADGE
