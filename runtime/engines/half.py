"""bf16 for NumPy, which has no such type: the upper half of a float32's bits, kept as uint16."""

from __future__ import annotations

import numpy as np

BF16 = "bfloat16"


def stored_dtype(name: str) -> np.dtype:
    """The NumPy type that holds values of a type of the contract."""
    return np.dtype(np.uint16 if name == BF16 else name)


def stored(values: np.ndarray, name: str) -> np.ndarray:
    """Contiguous `values` as their type `name` lies in memory; floats are rounded to nearest, ties to even."""
    if name != BF16:
        return np.ascontiguousarray(values, name)
    single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # A NaN whose upper half is empty must not round to infinity.
    return np.where(np.isnan(single), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def read(values: np.ndarray, name: str) -> np.ndarray:
    """What lies in memory as numbers: bf16 becomes float32, everything else stays as it is."""
    if name != BF16:
        return values
    return (values.astype(np.uint32) << 16).view(np.float32)
