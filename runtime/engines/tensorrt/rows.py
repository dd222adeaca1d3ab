"""Outputs that stay on the GPU, item by item, until somebody needs their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from devil.contract import GraphSpec, Precision
from devil.errors import EngineError
from devil.runtime.engines import half
from devil.runtime.engines.cuda_device import CudaDevice, DeviceMemory


@dataclass(frozen=True)
class DeviceRow:
    """One item of an output's first axis.

    Attributes:
        memory: where the whole output lies.
        offset: of the item in it, bytes.
        shape: of the item.
        kind: its type, by the contract's name.
        ready: event behind the run that writes it.
    """

    device: CudaDevice
    memory: DeviceMemory
    offset: int
    shape: tuple[int, ...]
    kind: str
    ready: Any

    @property
    def dtype(self) -> np.dtype:
        return half.stored_dtype(self.kind)

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def address(self) -> int:
        return self.memory.address + self.offset

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The numbers, after waiting for them."""
        found = np.empty(self.shape, self.dtype)
        with self.device.explained("an output cannot be read from the GPU"):
            self.ready.synchronize()
            if found.size:
                self.device.cuda.memcpy_dtoh(found, self.address)
        values = half.read(found, self.kind)
        return values if dtype is None else values.astype(dtype, copy=bool(copy))


def rows_of(device: CudaDevice, memory: DeviceMemory, shape: tuple[int, ...], kind: str, ready: Any) -> list[DeviceRow]:
    """All items of an output [N, …] that lies in `memory`."""
    size = math.prod(shape[1:]) * half.stored_dtype(kind).itemsize
    return [DeviceRow(device, memory, index * size, shape[1:], kind, ready) for index in range(shape[0])]


def resident(feed: object) -> bool:
    """Whether a feed is made of rows on the GPU."""
    return isinstance(feed, Sequence) and len(feed) > 0 and all(isinstance(row, DeviceRow) for row in feed)


def row_shape(spec: GraphSpec, precision: Precision, name: str, rows: Sequence[DeviceRow]) -> tuple[int, ...]:
    """The shape of rows as one input of a graph.

    Raises:
        EngineError: the contract says another shape or type.
    """
    tensor = next(tensor for tensor in spec.inputs if tensor.name == name)
    shape, kind = (len(rows), *rows[0].shape), tensor.numpy_dtype(precision)
    sizes_fit = len(shape) == len(tensor.shape) and all(
        isinstance(size, str) or size == has for size, has in zip(tensor.shape, shape, strict=True)
    )
    if not sizes_fit or any((row.shape, row.kind) != (rows[0].shape, kind) for row in rows):
        told = f"rows of {rows[0].kind} {rows[0].shape}"
        raise EngineError(f"{spec.name}.{name} is fed {told}, the contract says {kind} {tensor.shape}")
    return shape


def adjacent(rows: Sequence[DeviceRow]) -> bool:
    """Whether rows lie one behind the other, as one tensor that TensorRT may read where it is."""
    first = rows[0]
    return first.address % 256 == 0 and all(
        row.memory is first.memory and row.offset == first.offset + index * first.bytes
        for index, row in enumerate(rows)
    )
