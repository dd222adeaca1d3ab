"""Where the time goes, as a picture: a bar of stages per contender, and the graphs side by side below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH = 1200
_MARGIN, _BAR, _GAP, _ROW = 32, 34, 14, 22
_TEXT, _QUIET, _LINE, _PAPER = "#1c1c1e", "#6b6b70", "#d0d0d4", "#ffffff"
# Okabe and Ito's colours, which stay apart for colour-blind eyes.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f")

Values = Mapping[str, Any]


def draw(document: Values) -> Image.Image:
    """The picture of a profile (docs/profiling.md)."""
    contenders = document["contenders"]
    stages = [name for name in contenders[0]["stages"] if name != "total"]
    cases = list(contenders[0]["graphs"])
    block = _BAR + _GAP + _ROW
    rows = len(cases) * (len(contenders) * (_ROW + 4) + _GAP)
    height = 2 * _MARGIN + 40 + len(contenders) * block + 2 * _ROW + 50 + rows
    image = Image.new("RGB", (WIDTH, height), _PAPER)
    pen = _Pen(image)
    y = pen.title(_MARGIN, "One sentence about a new video, median seconds per stage")
    y = _stage_bars(pen, y, contenders, stages)
    y = _legend(pen, y, stages)
    y = pen.title(y + 20, "Each graph alone: median, and a line up to the 99th percentile")
    _graph_bars(pen, y, contenders, cases)
    return image


class _Pen:
    """Text and boxes with the picture's fonts."""

    def __init__(self, image: Image.Image):
        self.draw = ImageDraw.Draw(image)
        self.small, self.large = ImageFont.load_default(15), ImageFont.load_default(20)

    def title(self, y: int, words: str) -> int:
        """Returns where the next thing goes."""
        self.draw.text((_MARGIN, y), words, _TEXT, self.large)
        return y + 40

    def text(self, x: float, y: float, words: str, colour: str = _TEXT) -> float:
        """Returns the x behind the words."""
        self.draw.text((x, y), words, colour, self.small)
        return x + self.small.getlength(words)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        self.draw.rectangle((round(x0), round(y0), max(round(x1), round(x0) + 1), round(y1)), fill=colour)


def _stage_bars(pen: _Pen, y: int, contenders: Sequence[Values], stages: Sequence[str]) -> int:
    """All bars have one scale, so that their lengths can be compared."""
    sums = [sum(values["stages"].get(stage, {"p50": 0})["p50"] for stage in stages) for values in contenders]
    scale = (WIDTH - 2 * _MARGIN) / max(*sums, 1e-9)
    for values, total in zip(contenders, sums, strict=True):
        pen.text(_MARGIN, y, f"{values['name']}: {_seconds(total)}")
        x, top = float(_MARGIN), y + _ROW
        for index, stage in enumerate(stages):
            width = scale * values["stages"].get(stage, {"p50": 0})["p50"]
            pen.box(x, top, x + width, top + _BAR, _COLOURS[index % len(_COLOURS)])
            share = f"{width / scale / max(total, 1e-9):.0%}"
            if width > pen.small.getlength(share) + 8:
                pen.text(x + 4, top + 9, share, "#ffffff" if index != 6 else _TEXT)
            x += width
        y = top + _BAR + _GAP
    return y


def _legend(pen: _Pen, y: int, stages: Sequence[str]) -> int:
    x = float(_MARGIN)
    for index, stage in enumerate(stages):
        pen.box(x, y + 2, x + 14, y + 16, _COLOURS[index % len(_COLOURS)])
        x = pen.text(x + 20, y, stage) + 22
    return y + _ROW


def _graph_bars(pen: _Pen, y: int, contenders: Sequence[Values], cases: Sequence[str]) -> None:
    """Every graph has its own scale: decoding a token and reading a video lie a thousand times apart."""
    names = max(pen.small.getlength(values["name"]) for values in contenders)
    left = _MARGIN + 90 + names + 20
    room = WIDTH - _MARGIN - left - 250
    for case in cases:
        worst = max(values["graphs"][case]["p99"] for values in contenders)
        pen.text(_MARGIN, y, case)
        for index, values in enumerate(contenders):
            found = values["graphs"][case]
            end = left + room * found["p50"] / max(worst, 1e-12)
            tail = left + room * found["p99"] / max(worst, 1e-12)
            pen.text(_MARGIN + 90, y, values["name"], _QUIET)
            pen.box(left, y + 2, end, y + _ROW - 4, _COLOURS[index % len(_COLOURS)])
            pen.draw.line((end, y + _ROW / 2 - 1, tail, y + _ROW / 2 - 1), fill=_QUIET, width=2)
            told = f"{_seconds(found['p50'])}, {found['per_second']:.4g} {found['unit']}/s"
            pen.text(left + room + 12, y, told)
            y += _ROW + 4
        pen.draw.line((_MARGIN, y + 2, WIDTH - _MARGIN, y + 2), fill=_LINE)
        y += _GAP


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"
