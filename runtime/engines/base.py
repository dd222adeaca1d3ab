"""What the runtime asks of an inference engine: NumPy arrays in, NumPy arrays out, and a KV cache that stays put."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from devil.contract import GraphSpec, Precision
from devil.errors import EngineError

Arrays = Mapping[str, np.ndarray]


class KVCache(Protocol):
    """The cache of some rows, held where the engine computes and written in place."""

    rows: int
    capacity: int  # slots per row, the contract's M

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """Runs the language graph on this cache: every input but `past_*` in, every output but `present_*` out."""
        ...

    def grow(self, capacity: int) -> None:
        """Makes room for `capacity` slots per row and keeps what is in the cache."""
        ...


class GraphRunner(Protocol):
    """One graph of a bundle, loaded."""

    spec: GraphSpec
    precision: Precision

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """All outputs by name. Arrays for the contract's "float" tensors are cast to the precision where needed.

        Raises:
            EngineError: a tensor is missing, unknown or misshapen, or the engine fails.
        """
        ...

    def cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache; only for the language graph."""
        ...


class Engine(Protocol):
    """Loads graphs."""

    name: str

    def load(self, path: Path, spec: GraphSpec, precision: Precision) -> GraphRunner:
        """Raises EngineError: the graph cannot be loaded here, or does not follow the contract."""
        ...


def checked_feeds(spec: GraphSpec, precision: Precision, feeds: Arrays, without: str = "") -> dict[str, np.ndarray]:
    """`feeds` as contiguous arrays of the contract's types.

    Args:
        without: inputs whose names start so are not expected (a bound cache).

    Raises:
        EngineError: names, number of dimensions, fixed sizes or types differ from the contract.
    """
    expected = {tensor.name: tensor for tensor in spec.inputs if not (without and tensor.name.startswith(without))}
    if feeds.keys() != expected.keys():
        differing = ", ".join(sorted(feeds.keys() ^ expected.keys()))
        raise EngineError(f"graph {spec.name!r} and what it is fed differ in: {differing}")
    arrays = {}
    for name, tensor in expected.items():
        array = feeds[name]
        fits = array.ndim == len(tensor.shape) and all(
            isinstance(size, str) or size == given for size, given in zip(tensor.shape, array.shape, strict=True)
        )
        if not fits:
            raise EngineError(f"{spec.name}.{name} has shape {array.shape}, the contract says {tensor.shape}")
        dtype = np.dtype(tensor.numpy_dtype(precision))
        if array.dtype != dtype and not (tensor.dtype == "float" and array.dtype.kind == "f"):
            raise EngineError(f"{spec.name}.{name} is {array.dtype}, the contract says {dtype}")
        arrays[name] = np.ascontiguousarray(array, dtype)
    return arrays
