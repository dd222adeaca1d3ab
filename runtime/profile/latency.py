"""Many measurements as a few figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Latency:
    """Seconds of one thing that was done `count` times.

    Attributes:
        p50, p90, p99: percentiles, interpolated between measurements; of fewer than a hundred, p99 is near the worst.
    """

    count: int
    mean: float
    least: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Of at least one measurement."""
        values = np.asarray(seconds, np.float64)
        p50, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
        return cls(len(values), float(values.mean()), float(values.min()), p50, p90, p99)

    def values(self) -> dict[str, float]:
        """As JSON values."""
        return asdict(self)
