"""Values of a tensor, counted as they stream by; whatever the order, the same counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 4096  # of magnitudes; at least half of them are used
_LEAST = -40  # binary exponent of the narrowest bin: finer than any float that is not zero here needs


@dataclass(frozen=True)
class Magnitudes:
    """How far from some number the values of a tensor lie.

    Attributes:
        counts: int64 [BINS]; bin k holds distances from k·width on, below (k + 1)·width. Zeros are in the first.
        width: of a bin.
        largest: the largest distance, exactly.
        zeros: how many are exactly zero, as half of what leaves a ReLU is.
    """

    counts: np.ndarray
    width: float
    largest: float
    zeros: int = 0

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def centres(self) -> np.ndarray:
        """float64 [BINS]"""
        return (np.arange(BINS) + 0.5) * self.width


@dataclass
class Histogram:
    """How often each value occurs.

    Bins are as wide as a power of two, so widening merges whole bins and loses nothing but resolution.

    Attributes:
        counts: int64 [2, BINS]: of negative values and of all others, by magnitude; bin k holds magnitudes from k·width
            on, below (k + 1)·width.
        exponent: width = 2 ** exponent.
        lowest, highest: the ends, exactly; 0 is always between them.
        total: values seen.
        zeros: how many of them are exactly zero.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros((2, BINS), np.int64))
    exponent: int = _LEAST
    lowest: float = 0.0
    highest: float = 0.0
    total: int = 0
    zeros: int = 0

    @property
    def width(self) -> float:
        return 2.0**self.exponent

    def add(self, values: np.ndarray) -> None:
        """Counts an array of any shape and float type.

        Raises:
            ValueError: it holds what is no number, or nothing finite.
        """
        if not values.size:
            return
        values = values.astype(np.float32, copy=False).ravel()
        lowest, highest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise ValueError("not finite")
        while max(-lowest, highest) >= BINS * self.width:
            self._widen()
        # A power of two divides exactly; what lies on a border goes where the float says.
        bins = np.multiply(np.abs(values), np.float32(1 / self.width)).astype(np.int32)
        self.counts += np.bincount(bins + BINS * (values >= 0), minlength=2 * BINS).reshape(2, BINS)
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        self.total += values.size
        self.zeros += int(values.size - np.count_nonzero(values))

    def about(self, centre: float) -> Magnitudes:
        """Distances from a number between the ends; of 0 exactly, of others to a bin."""
        largest = max(self.highest - centre, centre - self.lowest)
        if centre == 0:
            return Magnitudes(self.counts.sum(0), self.width, largest, self.zeros)
        width = self.width * (1 if largest < BINS * self.width else 2)
        middles = (np.arange(BINS) + 0.5) * self.width
        # The middle of a bin at either end may lie beyond the largest distance.
        distances = np.minimum(np.abs(np.stack([-middles, middles]) - centre), largest)
        bins = np.minimum((distances / width).astype(np.int64), BINS - 1)
        counts = np.zeros(BINS, np.int64)
        np.add.at(counts, bins.ravel(), self.counts.ravel())
        return Magnitudes(counts, width, largest)

    def _widen(self) -> None:
        merged = self.counts.reshape(2, -1, 2).sum(2)
        self.counts = np.concatenate([merged, np.zeros_like(merged)], 1)
        self.exponent += 1
