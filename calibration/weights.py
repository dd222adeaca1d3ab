"""A weight in 8 bits: one scale per output, and codes that are the nearest or that make up for each other's errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from devil.calibration.forms import Grid
from devil.calibration.language.rounding import inverse_factor
from devil.calibration.layers import Layer
from devil.errors import CalibrationError

Stored = tuple[np.ndarray, np.ndarray]  # codes in the weight's shape; scales of its outputs, in the weight's type
Quantise = Callable[[Layer, np.ndarray, Grid], Stored]

_STRETCH = 128  # inputs whose errors are passed on to all later ones together


def nearest(layer: Layer, weight: np.ndarray, grid: Grid) -> Stored:
    """Every weight rounded to nearest.

    Raises:
        CalibrationError: it has values that are no numbers.
    """
    scales = _scales(layer, weight, grid)
    return grid.codes(weight, scales.astype(np.float32)), scales.reshape(-1)


def compensated(layer: Layer, weight: np.ndarray, grid: Grid, moment: Tensor) -> Stored:
    """Inputs rounded one after the other, while those that are left take over the errors so far: GPTQ (Frantar et al.,
    2023, algorithm 1), with one scale per output and on any grid.

    Args:
        weight: of a matrix product, [K, N] or [N, K].
        moment: mean of x xᵀ of the layer's inputs, float32 [K, K].

    Raises:
        CalibrationError: it has values that are no numbers.
    """
    scales = _scales(layer, weight, grid)
    scale = scales.astype(np.float32).reshape(-1)
    left = np.moveaxis(weight, layer.axis, 0).astype(np.float32)  # [N, K], a copy: what is rounded changes what is left
    factor = inverse_factor(moment).numpy()
    codes = np.empty(left.shape, grid.ir_type.numpy())
    for start in range(0, left.shape[1], _STRETCH):
        stretch = range(start, min(start + _STRETCH, left.shape[1]))
        errors = np.empty((len(left), len(stretch)), np.float32)
        for column in stretch:
            codes[:, column] = grid.codes(left[:, column], scale)
            error = (left[:, column] - codes[:, column].astype(np.float32) * scale) / factor[column, column]
            left[:, column + 1 : stretch.stop] -= np.outer(error, factor[column, column + 1 : stretch.stop])
            errors[:, column - start] = error
        left[:, stretch.stop :] -= errors @ factor[start : stretch.stop, stretch.stop :]
    return np.moveaxis(codes, 0, layer.axis), scales.reshape(-1)


def _scales(layer: Layer, weight: np.ndarray, grid: Grid) -> np.ndarray:
    """That put every output's largest weight on the grid's largest number; they broadcast with the weight."""
    others = tuple(other for other in range(weight.ndim) if other != layer.axis)
    largest = np.abs(weight.astype(np.float32)).max(others, keepdims=True)
    if not np.isfinite(largest).all():
        raise CalibrationError(f"{layer.weight} has values that are no numbers", "export the bundle again")
    return grid.scale(largest, weight.dtype)


class StoredWeights:
    """What the weights of a graph are stored as, each found once.

    Args:
        quantise: finds it.
    """

    def __init__(self, quantise: Quantise = nearest):
        self._quantise = quantise
        self._found: dict[tuple[str, str, int], Stored] = {}

    def of(self, layer: Layer, weight: np.ndarray, grid: Grid) -> Stored:
        """Codes and scales; layers that share a weight share them too.

        Raises:
            CalibrationError: the weight has values that are no numbers.
        """
        key = (layer.weight, grid.form, layer.axis)
        if key not in self._found:
            self._found[key] = self._quantise(layer, weight, grid)
        return self._found[key]
