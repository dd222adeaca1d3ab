"""Random choices that stay the same for ever: Python promises the sequence of `random()`, not of `choice()`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Draws named by a text: the same name gives the same draws on every machine and Python version."""

    def __init__(self, name: str):
        self._next = random.Random(name).random

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._next()

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int(self._next() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._next() < probability

    def choice(self, values: Sequence[T]) -> T:
        return values[int(self._next() * len(values))]

    def weighted(self, weights: dict[T, float]) -> T:
        """A key of `weights`, drawn in proportion to its weight."""
        point = self._next() * sum(weights.values())
        for key, weight in weights.items():
            point -= weight
            if point < 0:
                return key
        return key
