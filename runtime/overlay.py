"""Draws an answer on a frame: the box, the sentence, and where the moment lies in the clip and in the span."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_BOX = (255, 214, 0)
_EDGE = (0, 0, 0)
_TEXT = (255, 255, 255)
_QUIET = (180, 180, 180)
_LINES = 2  # of the sentence at most; the rest is cut
_SMALLEST_FONT = 10  # pixels; the default font is not readable below
_SMALLEST_SIDE = 64  # smaller frames get the box only: a readable strip would hide most of the picture


class Overlay:
    """The layout for frames of one size.

    Args:
        width, height: pixels of the frames.
        caption: what stands in the strip along the bottom, cut where it does not fit.
        span: start and end in seconds, or None.
        duration: seconds of the clip; 0 leaves time and bar out, as for an image.
    """

    def __init__(self, width: int, height: int, caption: str, span: tuple[float, float] | None, duration: float):
        self._size = width, height
        self._span, self._duration = span, duration
        self._line = max(round(min(width, height) / 160), 1 if min(width, height) < 120 else 2)
        font_size = max(round(min(width / 30, height / 18)), _SMALLEST_FONT)
        self._font = ImageFont.load_default(font_size)
        self._margin, self._row = font_size // 2, round(font_size * 1.3)
        self._bar = max(font_size // 4, 2) if duration else 0
        self._lines = wrap(caption, self._font, width - 2 * self._margin, _LINES if height >= 120 else 1)
        rows = len(self._lines) + bool(duration)
        self._strip = rows * self._row + self._bar + self._margin if min(width, height) >= _SMALLEST_SIDE else 0

    def draw(self, frame: np.ndarray, box: np.ndarray | None, time: float) -> np.ndarray:
        """A copy of `frame` uint8 [H, W, 3] with `box` (x1, y1, x2, y2 in pixels, or None) at `time` seconds."""
        image = Image.fromarray(frame)
        if box is not None:
            self._draw_box(ImageDraw.Draw(image), box)
        if self._strip:
            frame = np.array(image)
            frame[-self._strip :] //= 3  # the box shows through, the text stays readable
            image = Image.fromarray(frame)
            self._write(ImageDraw.Draw(image), time)
        return np.asarray(image)

    def _draw_box(self, pen: ImageDraw.ImageDraw, box: np.ndarray) -> None:
        """A bright line between dark ones, inside the picture even where the box touches or leaves its border."""
        width, height = self._size
        limits = (width - 1, height - 1, width - 1, height - 1)
        x1, y1, x2, y2 = (int(np.clip(round(float(side)), 0, limit)) for side, limit in zip(box, limits, strict=True))
        edge = max(self._line // 2, 1)
        for inset, colour, thickness in ((-edge, _EDGE, self._line + 2 * edge), (0, _BOX, self._line)):
            corners = (max(x1 + inset, 0), max(y1 + inset, 0), min(x2 - inset, width - 1), min(y2 - inset, height - 1))
            pen.rectangle(corners, outline=colour, width=thickness)

    def _write(self, pen: ImageDraw.ImageDraw, time: float) -> None:
        width, height = self._size
        top = height - self._strip + self._margin // 2
        for line in self._lines:
            pen.text((self._margin, top), line, _TEXT, self._font)
            top += self._row
        if not self._duration:
            return
        inside = self._span is not None and self._span[0] <= time <= self._span[1]
        now = f"{time:.1f} s"
        pen.text((self._margin, top), now, _BOX if inside else _TEXT, self._font)
        room = width - 3 * self._margin - self._font.getlength(now)
        for told in self._span_texts():
            if (length := self._font.getlength(told)) <= room:
                pen.text((width - self._margin - length, top), told, _QUIET, self._font)
                break
        self._draw_bar(pen, time)

    def _span_texts(self) -> list[str]:
        """The longest first."""
        if self._span is None:
            return ["no span"]
        between = f"{self._span[0]:.1f} to {self._span[1]:.1f} s"  # the font has no en dash
        return [f"span {between}", between]

    def _draw_bar(self, pen: ImageDraw.ImageDraw, time: float) -> None:
        width, height = self._size

        def across(seconds: float) -> int:
            return round(min(max(seconds / self._duration, 0), 1) * (width - 1))

        top, bottom = height - self._bar, height - 1
        pen.rectangle((0, top, width - 1, bottom), fill=(70, 70, 70))
        if self._span:
            pen.rectangle((across(self._span[0]), top, across(self._span[1]), bottom), fill=_BOX)
        head, half = across(time), max(self._bar // 2, 1)
        pen.rectangle((head - half, top - half, head + half, bottom), fill=_TEXT, outline=_EDGE if half > 2 else None)


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """Breaks `text` between words into at most `lines` lines of `width` pixels; an ellipsis ends what does not fit."""
    words = text.split()
    done: list[str] = []
    while words and len(done) < lines:
        line = words.pop(0)
        while words and font.getlength(f"{line} {words[0]}") <= width:
            line = f"{line} {words.pop(0)}"
        done.append(line)
    if words or any(font.getlength(line) > width for line in done):
        done = [_shortened(line, font, width, bool(words) and line is done[-1]) for line in done]
    return done


def _shortened(line: str, font: ImageFont.FreeTypeFont, width: float, goes_on: bool) -> str:
    if not goes_on and font.getlength(line) <= width:
        return line
    line = line[: int(width)]  # a letter is at least a pixel wide
    while line and font.getlength(f"{line}…") > width:
        line = line.rpartition(" ")[0] or line[:-1]  # whole words where there are several
    return f"{line}…"
