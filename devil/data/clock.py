"""When a synthetic clip's frames are shown, and which of them the model samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from devil.data.dice import Dice

FRAME_RATES = (Fraction(4), Fraction(5), Fraction(8), Fraction(10), Fraction(25, 2), Fraction(25))
SHORTEST, LONGEST = 4.0, 12.0  # seconds


@dataclass(frozen=True)
class Clock:
    """A clip of `count` frames at `rate` per second, of which the model sees `frames`.

    The model asks for the picture at `linspace(0, duration, frames)` and gets the frame on screen at that moment.
    Counts share no factor with frames - 1, so none of these moments is the very moment a frame changes, and rounding
    cannot pick another frame.
    """

    rate: Fraction
    count: int
    frames: int

    @cached_property
    def duration(self) -> float:
        """Seconds."""
        return float(self.count / self.rate)

    @cached_property
    def spacing(self) -> float:
        """Seconds between two sampled moments."""
        return self.duration / max(self.frames - 1, 1)

    @cached_property
    def times(self) -> np.ndarray:
        """The sampled moments, seconds float64 [frames]: the timestamps of the prompt, each exact before rounding."""
        ticks, parts = self.count * self.rate.denominator, self.rate.numerator * max(self.frames - 1, 1)
        return np.array([index * ticks / parts for index in range(self.frames)])

    @cached_property
    def ids(self) -> np.ndarray:
        """Which of the clip's frames is on screen at each sampled moment, int64 [frames]."""
        ids = np.arange(self.frames) * self.count // max(self.frames - 1, 1)
        return np.minimum(ids, self.count - 1)

    @cached_property
    def shown(self) -> np.ndarray:
        """The moments at which those frames were taken, seconds float64 [frames]; never later than `times`."""
        return self.ids / float(self.rate)


def draw_clock(dice: Dice, frames: int) -> Clock:
    """A clip of 4 to 12 seconds (more for many frames) whose frames change twice as often as the model samples."""
    intervals = max(frames - 1, 1)
    shortest = max(SHORTEST, float(2 * intervals / FRAME_RATES[-1]))
    duration = dice.uniform(shortest, max(LONGEST, 2 * shortest))
    rate = dice.choice([rate for rate in FRAME_RATES if rate * duration >= 2 * intervals])
    count = round(duration * rate)
    while math.gcd(count, intervals) > 1:
        count += 1
    return Clock(rate, count, frames)
