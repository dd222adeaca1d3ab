"""From counted values to the range of an activation: beyond it they are cut off.

A small range makes small steps and cuts much off; a large one the reverse. It lies around zero, as the grids do, unless
the values lie on one side of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from devil.calibration.forms import GRIDS, Form
from devil.calibration.histogram import BINS, Histogram, Magnitudes

Rule = Literal["max", "percentile", "entropy", "mse"]

PERCENTILE = 99.99
_CANDIDATES = 128  # thresholds that are tried
_LEVELS = 128  # magnitudes that int8 tells apart
_ROUNDS = 3  # the middle depends on what is kept, and what is kept on the middle
_WORTH = 0.8  # of the range around zero: more than that does not pay for a subtraction in every run


@dataclass(frozen=True)
class Range:
    """Where the values of an activation are kept.

    Attributes:
        threshold: the largest distance from the centre; 0 where the tensor is zero.
        centre: what is subtracted before rounding; a whole number of steps of the grid, so that zeros stay exact.
    """

    threshold: float
    centre: float = 0.0


def range_around_zero(histogram: Histogram, rule: Rule, form: Form) -> Range:
    """The range by a rule."""
    return Range(_threshold(histogram, 0.0, rule, form))


def range_of(histogram: Histogram, rule: Rule, form: Form) -> Range:
    """The range by a rule, around the middle of what it keeps where that makes the steps much smaller.

    What leaves GELU or ReLU needs half the steps then. 8-bit floats are finest around zero, and entropy is a rule about
    magnitudes: both stay there.
    """
    plain = range_around_zero(histogram, rule, form)
    if form != "int8" or rule == "entropy" or not plain.threshold:
        return plain
    kept, centre = plain.threshold, 0.0
    for _ in range(_ROUNDS):
        centre = (max(histogram.lowest, centre - kept) + min(histogram.highest, centre + kept)) / 2
        kept = _threshold(histogram, centre, rule, form)
    if kept > _WORTH * plain.threshold:
        return plain
    step = kept / GRIDS[form].largest
    return Range(kept, round(centre / step) * step)


def _threshold(histogram: Histogram, centre: float, rule: Rule, form: Form) -> float:
    magnitudes = histogram.about(centre)
    return RULES[rule](magnitudes, form) if magnitudes.largest else 0.0


def largest(magnitudes: Magnitudes, _form: Form) -> float:
    """Nothing is cut off."""
    return magnitudes.largest


def percentile(magnitudes: Magnitudes, _form: Form) -> float:
    """Cuts off the largest 0.01 % of the values."""
    below = np.cumsum(magnitudes.counts)
    bin_ = int(np.searchsorted(below, PERCENTILE / 100 * magnitudes.total))
    return min((bin_ + 1) * magnitudes.width, magnitudes.largest)


def least_squares(magnitudes: Magnitudes, form: Form) -> float:
    """The candidate whose rounding and cutting off have the least squared error together."""
    candidates = magnitudes.largest * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    used = np.flatnonzero(magnitudes.counts)
    centres, counts = magnitudes.centres[used], magnitudes.counts[used]
    grid = GRIDS[form]
    errors = [
        float((counts * (grid.rounded(centres, grid.scale(candidate)) - centres) ** 2).sum())
        for candidate in candidates
    ]
    return float(candidates[int(np.argmin(errors))])


def entropy(magnitudes: Magnitudes, form: Form) -> float:
    """The candidate whose distribution of rounded values diverges least from that of the values.

    The method of TensorRT's former calibrator (Migacz, "8-bit inference with TensorRT", GTC 2017). It is about evenly
    spaced numbers; for fp8, whose numbers are not, it is the largest value.
    """
    if form != "int8":
        return magnitudes.largest
    used = min(int(magnitudes.largest / magnitudes.width) + 1, BINS)
    stops = np.unique(np.linspace(_LEVELS, used, _CANDIDATES).round().astype(int)) if used > _LEVELS else [used]
    counts = magnitudes.counts[:used].astype(np.float64)
    counts[0] -= magnitudes.zeros  # they cost nothing, and would outweigh everything behind a ReLU
    divergences = [_divergence(counts, stop) for stop in stops]
    return min(float(stops[int(np.argmin(divergences))] * magnitudes.width), magnitudes.largest)


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


RULES: Mapping[Rule, Callable[[Magnitudes, Form], float]] = {
    "max": largest,
    "percentile": percentile,
    "entropy": entropy,
    "mse": least_squares,
}
