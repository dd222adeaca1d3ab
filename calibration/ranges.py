"""From counted magnitudes to the threshold beyond which an activation is cut off.

A small threshold makes small steps and cuts much off; a large one the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from devil.calibration.forms import GRIDS, Form
from devil.calibration.histogram import BINS, Histogram

Rule = Literal["max", "percentile", "entropy", "mse"]

PERCENTILE = 99.99
_CANDIDATES = 128  # thresholds that are tried
_LEVELS = 128  # magnitudes that int8 tells apart


def threshold(histogram: Histogram, rule: Rule, form: Form) -> float:
    """The largest magnitude that is kept; 0 where the tensor is zero."""
    if histogram.largest == 0:
        return 0.0
    return RULES[rule](histogram, form)


def largest(histogram: Histogram, _form: Form) -> float:
    """Nothing is cut off."""
    return histogram.largest


def percentile(histogram: Histogram, _form: Form) -> float:
    """Cuts off the largest 0.01 % of the values."""
    below = np.cumsum(histogram.counts)
    bin_ = int(np.searchsorted(below, PERCENTILE / 100 * histogram.total))
    return min((bin_ + 1) * histogram.width, histogram.largest)


def least_squares(histogram: Histogram, form: Form) -> float:
    """The candidate whose rounding and cutting off have the least squared error together."""
    candidates = histogram.largest * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    used = np.flatnonzero(histogram.counts)
    centres, counts = histogram.centres[used], histogram.counts[used]
    grid = GRIDS[form]
    errors = [
        float((counts * (grid.rounded(centres, grid.scale(candidate)) - centres) ** 2).sum())
        for candidate in candidates
    ]
    return float(candidates[int(np.argmin(errors))])


def entropy(histogram: Histogram, form: Form) -> float:
    """The candidate whose distribution of rounded values diverges least from that of the values.

    The method of TensorRT's former calibrator (Migacz, "8-bit inference with TensorRT", GTC 2017). It is about evenly
    spaced numbers; for fp8, whose numbers are not, it is the largest value.
    """
    if form != "int8":
        return histogram.largest
    used = min(int(histogram.largest / histogram.width) + 1, BINS)
    stops = np.unique(np.linspace(_LEVELS, used, _CANDIDATES).round().astype(int)) if used > _LEVELS else [used]
    counts = histogram.counts[:used].astype(np.float64)
    counts[0] -= histogram.zeros  # they cost nothing, and would outweigh everything behind a ReLU
    divergences = [_divergence(counts, stop) for stop in stops]
    return min(float(stops[int(np.argmin(divergences))] * histogram.width), histogram.largest)


def _divergence(counts: np.ndarray, stop: int) -> float:
    """Kullback-Leibler divergence of the counts, cut off at bin `stop`, from the same in as many levels as int8 has."""
    clipped = counts[:stop].copy()
    clipped[-1] += counts[stop:].sum()
    level = np.arange(stop) * _LEVELS // stop if stop > _LEVELS else np.arange(stop)
    filled = counts[:stop] > 0
    mass = np.bincount(level, counts[:stop], minlength=_LEVELS)
    share = np.bincount(level, filled, minlength=_LEVELS)
    spread = np.where(filled, (mass / np.maximum(share, 1))[level], 0)
    if not spread.sum():
        return np.inf
    p, q = clipped / clipped.sum(), spread / spread.sum()
    both = (p > 0) & (q > 0)
    lost = p[(p > 0) & (q == 0)].sum()  # mass where the rounded values have none: counted against a small number
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * np.log(1e6))


RULES: Mapping[Rule, Callable[[Histogram, Form], float]] = {
    "max": largest,
    "percentile": percentile,
    "entropy": entropy,
    "mse": least_squares,
}
