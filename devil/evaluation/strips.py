"""A clip at a glance: a row of its sampled frames with the true and the told box, as one JPEG."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

from devil.errors import VideoError
from devil.evaluation.samples import Asked
from devil.metrics import frames_inside
from devil.video import probe, read_frames

TRUE, TOLD = "#2ea043", "#ff9f0a"
FRAMES = 8  # at most, evenly spread
_HEIGHT = 132  # pixels of each frame
_GAP = 4
_LINE = 2


def shown_rows(count: int) -> np.ndarray:
    """Which of `count` sampled frames a strip shows, int64, rising, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(FRAMES, count)).round().astype(np.int64))


def strip(asked: Asked) -> Image.Image | None:
    """The frames of one answered question side by side; None where the video cannot be read any more.

    The true box is drawn in frames of the true span, the told one in frames of the told span.
    """
    sample, rows = asked.sample, shown_rows(len(asked.frames))
    true, told = (frames_inside(sample.times, span) for span in (sample.true_span, sample.span))
    try:
        pictures = read_frames(probe(asked.path), [asked.frames[row] for row in rows], _thumbnail)
    except VideoError:
        return None
    for row, picture in zip(rows, pictures, strict=True):
        if true[row]:
            _draw(picture, sample.true_boxes[row], TRUE)
        if told[row]:
            _draw(picture, sample.boxes[row], TOLD)
    width = sum(picture.width + _GAP for picture in pictures) - _GAP
    joined = Image.new("RGB", (width, _HEIGHT), "white")
    left = 0
    for picture in pictures:
        joined.paste(picture, (left, 0))
        left += picture.width + _GAP
    return joined


def data_uri(image: Image.Image) -> str:
    """The image inside an address, for a page that needs no other file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _thumbnail(frame: np.ndarray) -> Image.Image:
    height, width = frame.shape[:2]
    return Image.fromarray(frame).resize((max(round(width * _HEIGHT / height), 1), _HEIGHT), Image.Resampling.BILINEAR)


def _draw(picture: Image.Image, box: np.ndarray, colour: str) -> None:
    """Draws a box given in fractions around what it holds, with a dark rim; none where it is nan."""
    if np.isnan(box).any():
        return
    limit = np.array([picture.width - 1, picture.height - 1] * 2)
    x1, y1, x2, y2 = np.clip(np.round(box * limit), 0, limit).astype(int).tolist()
    pen = ImageDraw.Draw(picture)
    pen.rectangle((x1 - 2, y1 - 2, x2 + 2, y2 + 2), outline="black")
    pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=colour, width=_LINE)
