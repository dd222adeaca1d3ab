"""Textured, muted backgrounds: the shapes are the only saturated things in a clip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from devil.data.dice import Dice


def _noise(rows: int, columns: int, dice: Dice) -> np.ndarray:
    # RandomState's stream is frozen by NumPy; the newer generators' is not.
    return np.random.RandomState(dice.integer(0, 2**31 - 1)).rand(rows, columns).astype(np.float32)


def _upsampled(grid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear reading of `grid`, stretched over the picture; x and y run from 0 to 1."""

    def axis(where: np.ndarray, cells: int) -> np.ndarray:
        knots = np.linspace(0, 1, cells)
        return np.maximum(0, 1 - np.abs(where[:, None] - knots) * (cells - 1)).astype(np.float32)

    return axis(y, grid.shape[0]) @ grid @ axis(x, grid.shape[1]).T


def _slanted(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    angle = dice.uniform(0, np.pi)
    return np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y[:, None]


def _gradient(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    return _slanted(x, y, dice)


def _clouds(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    return _upsampled(_noise(dice.integer(4, 9), dice.integer(4, 9), dice), x, y)


def _speckle(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    return _upsampled(_noise(dice.integer(24, 40), dice.integer(24, 40), dice), x, y)


def _stripes(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    return np.sin(_slanted(x, y, dice) * np.float32(dice.uniform(20, 60)))


def _checks(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    cells = np.float32(dice.uniform(8, 24))
    return np.sin(x * cells) * np.sin(y * cells)[:, None]


def _ripples(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    centre = dice.uniform(-0.3, 1.3), dice.uniform(-0.3, 1.3)
    distance = np.hypot(x - np.float32(centre[0]), y[:, None] - np.float32(centre[1]))
    return np.sin(distance * np.float32(dice.uniform(25, 60)))


def _bricks(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    rows = dice.integer(6, 11)
    row = np.floor(y * rows)
    across = x[None, :] * (rows / 2) + (row % 2)[:, None] / 2
    mortar = np.minimum((y * rows % 1)[:, None], across % 1) < 0.12
    return mortar + np.float32(0.3) * _clouds(x, y, dice)


def _weave(x: np.ndarray, y: np.ndarray, dice: Dice) -> np.ndarray:
    one, two = _slanted(x, y, dice), _slanted(x, y, dice)
    return np.sin(one * np.float32(dice.uniform(15, 45))) + np.sin(two * np.float32(dice.uniform(15, 45)))


Family = Callable[[np.ndarray, np.ndarray, Dice], np.ndarray]
TRAIN_FAMILIES: dict[str, Family] = {
    "gradient": _gradient, "clouds": _clouds, "speckle": _speckle, "stripes": _stripes, "checks": _checks,
}  # fmt: skip
HELD_OUT_FAMILIES: dict[str, Family] = {"ripples": _ripples, "bricks": _bricks, "weave": _weave}
FAMILIES = TRAIN_FAMILIES | HELD_OUT_FAMILIES


def background(family: str, name: str, height: int, width: int) -> np.ndarray:
    """A still picture uint8 [height, width, 3], the same for the same family and name at any resolution."""
    dice = Dice(name)
    x = (np.arange(width, dtype=np.float32) + 0.5) / width
    y = (np.arange(height, dtype=np.float32) + 0.5) / height
    pattern = FAMILIES[family](x, y, dice)
    low, high = float(pattern.min()), float(pattern.max())
    pattern = (pattern - low) * np.float32(1 / max(high - low, 1e-6))
    grey, contrast = dice.uniform(70, 185), dice.uniform(20, 60)
    first = [grey - contrast / 2 + dice.uniform(-14, 14) for _ in range(3)]
    second = [grey + contrast / 2 + dice.uniform(-14, 14) for _ in range(3)]
    picture = np.empty((height, width, 3), np.uint8)
    for channel, (dark, light) in enumerate(zip(first, second, strict=True)):
        picture[..., channel] = pattern * np.float32(light - dark) + np.float32(dark)
    return picture
