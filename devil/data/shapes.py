"""The coloured shapes of the synthetic clips: their names, their colours, and their anti-aliased outlines."""

from __future__ import annotations

import math

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 32, 36),
    "orange": (250, 138, 12),
    "yellow": (246, 228, 38),
    "green": (28, 158, 52),
    "cyan": (38, 206, 222),
    "blue": (30, 62, 214),
    "purple": (158, 46, 196),
}
SHAPES = ("circle", "square", "triangle", "diamond", "ring", "cross")

# Pairs that no training clip ever shows; every colour and every shape still occurs in other pairs.
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "cross"),
        ("orange", "ring"),
        ("yellow", "diamond"),
        ("green", "triangle"),
        ("cyan", "circle"),
        ("blue", "square"),
        ("purple", "circle"),
    }
)
ALL_PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
TRAIN_PAIRS = tuple(pair for pair in ALL_PAIRS if pair not in HELD_OUT_PAIRS)

_RING_WIDTH = 0.42  # of the radius
_CROSS_ARM = 0.34  # half width of an arm


def depth(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """How far inside the outline a point lies (negative outside), in radii.

    Args:
        shape: one of `SHAPES`; every one of them fills the box -1 … 1 in u and v from edge to edge.
        u, v: rightward and downward distance from the centre, in radii; they broadcast against each other.
    """
    if shape == "circle":
        return 1 - np.sqrt(u * u + v * v)
    if shape == "ring":
        half = _RING_WIDTH / 2
        return half - np.abs(np.sqrt(u * u + v * v) - (1 - half))
    if shape == "triangle":
        return np.minimum(1 - v, ((v + 1) / 2 - np.abs(u)) * (2 / math.sqrt(5)))
    u, v = np.abs(u), np.abs(v)
    if shape == "square":
        return 1 - np.maximum(u, v)
    if shape == "diamond":
        return (1 - u - v) / math.sqrt(2)
    across = np.minimum(1 - u, _CROSS_ARM - v)
    return np.maximum(across, np.minimum(_CROSS_ARM - u, 1 - v))


def coverage(shape: str, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Share of a pixel that the shape covers, 0 … 1.

    Args:
        shape, u, v: as for `depth`, at the centres of the pixels.
        radius: of the shape, in pixels.
    """
    return np.clip(depth(shape, u, v) * radius + 0.5, 0, 1)
