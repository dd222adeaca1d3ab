"""One moving shape: where it is, and whether it is there, at any instant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from devil.data.shapes import COLOURS, SHAPES

Interval = tuple[float, float]  # seconds, the end excluded
MARGIN = 0.02  # between a shape and the picture's edge


@dataclass(frozen=True)
class Actor:
    """A shape and its life in continuous time. Lengths are in units of the picture's shorter side.

    Attributes:
        colour, shape: names from `COLOURS` and `SHAPES`.
        size: "small", "medium" or "large".
        rgb: its actual colour.
        radius: half the side of its (square) box.
        extent: width and height of the picture.
        origin: its centre before it has moved.
        velocity: per second, while it moves; it bounces off the picture's edges.
        present, moving, flashing: when it is in the picture, moves, and shows its pale face.
    """

    colour: str
    shape: str
    size: str
    rgb: tuple[int, int, int]
    radius: float
    extent: tuple[float, float]
    origin: tuple[float, float]
    velocity: tuple[float, float]
    present: Interval
    moving: tuple[Interval, ...] = ()
    flashing: tuple[Interval, ...] = ()

    @property
    def labels(self) -> tuple[int, int]:
        """Indices of its colour and shape."""
        return list(COLOURS).index(self.colour), SHAPES.index(self.shape)

    def travelled(self, times: np.ndarray) -> np.ndarray:
        """Seconds it has spent moving, up to each instant."""
        total = np.zeros(len(times))
        for start, end in self.moving:
            total += np.minimum(np.maximum(times, start), end) - start
        return total

    def centres(self, times: np.ndarray) -> np.ndarray:
        """(x, y) at each instant, float64 [T, 2]."""
        low = self.radius + MARGIN
        room = np.array(self.extent) - 2 * low
        path = np.array(self.origin) - low + self.travelled(times)[:, None] * self.velocity
        return low + room - np.abs(path % (2 * room) - room)

    def visible(self, times: np.ndarray) -> np.ndarray:
        """bool [T]"""
        return (times >= self.present[0]) & (times < self.present[1])

    def pale(self, times: np.ndarray) -> np.ndarray:
        """Whether it shows its pale face, bool [T]."""
        return _within(times, self.flashing)

    def boxes(self, times: np.ndarray) -> np.ndarray:
        """x1, y1, x2, y2 as fractions of the picture, float32 [T, 4], also where it is not visible."""
        centres, (width, height) = self.centres(times), self.extent
        corners = np.concatenate((centres - self.radius, centres + self.radius), axis=1)
        return (corners / (width, height, width, height)).astype(np.float32)


def _within(times: np.ndarray, intervals: tuple[Interval, ...]) -> np.ndarray:
    inside = np.zeros(len(times), bool)
    for start, end in intervals:
        inside |= (times >= start) & (times < end)
    return inside
