"""Magnitudes of a tensor, counted as they stream by; whatever the order, the same counts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 4096  # at least half of them are used
_LEAST = -40  # binary exponent of the narrowest bin: finer than any float that is not zero here needs


@dataclass
class Histogram:
    """How often each magnitude occurs.

    Bins are as wide as a power of two, so widening merges whole bins and loses nothing but resolution.

    Attributes:
        counts: int64 [BINS]; bin k holds magnitudes from k·width on, below (k + 1)·width. Zeros are in the first.
        exponent: width = 2 ** exponent.
        largest: the largest magnitude, exactly.
        total: values seen.
        zeros: how many of them are exactly zero, as half of what leaves a ReLU is.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    exponent: int = _LEAST
    largest: float = 0.0
    total: int = 0
    zeros: int = 0

    @property
    def width(self) -> float:
        return 2.0**self.exponent

    @property
    def centres(self) -> np.ndarray:
        """float64 [BINS]"""
        return (np.arange(BINS) + 0.5) * self.width

    def add(self, values: np.ndarray) -> None:
        """Counts an array of any shape and float type.

        Raises:
            ValueError: it holds what is no number, or nothing finite.
        """
        if not values.size:
            return
        magnitudes = np.abs(values.astype(np.float32, copy=False).ravel())
        largest = float(magnitudes.max())
        if not np.isfinite(largest):
            raise ValueError("not finite")
        while largest >= BINS * self.width:
            self._widen()
        # A power of two divides exactly; what lies on a border goes where the float says.
        bins = np.multiply(magnitudes, np.float32(1 / self.width)).astype(np.int32)
        self.counts += np.bincount(bins, minlength=BINS)
        self.largest = max(self.largest, largest)
        self.total += magnitudes.size
        self.zeros += int(magnitudes.size - np.count_nonzero(magnitudes))

    def _widen(self) -> None:
        self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
        self.exponent += 1
