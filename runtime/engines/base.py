"""What the runtime asks of an inference engine: NumPy arrays in, NumPy arrays out, and a KV cache that stays put."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from devil.contract import GraphSpec, Precision
from devil.errors import EngineError
from devil.runtime.engines.half import stored

Arrays = Mapping[str, np.ndarray]


class Row(Protocol):
    """One item of an output's first axis that may have stayed where the engine computes; an array is one too.

    NumPy turns it into an array (`numpy.asarray`), which waits for it and copies it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


# Rows of one shape that came from this engine may be fed as they are; they are stacked along the first axis.
Feeds = Mapping[str, np.ndarray | Sequence[Row]]


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

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """All outputs by name. Arrays for the contract's "float" tensors are cast to the precision where needed.

        Raises:
            EngineError: a tensor is missing, unknown or misshapen, or the engine fails.
        """
        ...

    def cache(self, rows: int, capacity: int) -> KVCache:
        """An empty cache; only for the language graph."""
        ...


class Pending(Protocol):
    """A run that was started. Its rows may be fed to other graphs of the engine at once."""

    def rows(self, output: str) -> Sequence[Row]:
        """An output, item by item along its first axis."""
        ...

    def wait(self) -> None:
        """Returns when the run is done.

        Raises:
            EngineError: it failed.
        """
        ...


@runtime_checkable
class AsyncRunner(GraphRunner, Protocol):
    """A runner on a device of its own, which computes while the caller goes on."""

    def submit(self, feeds: Feeds) -> Pending:
        """Starts a run, as `run` does it; outputs stay on the device until somebody reads them."""
        ...

    def most(self, dimension: str, sizes: Mapping[str, int]) -> int | None:
        """The most of one of the contract's dimensions that a run takes; None: any number.

        Args:
            sizes: of other dimensions.

        Raises:
            EngineError: it does not take these sizes at all; the message has the limit and what raises it.
        """
        ...


class Engine(Protocol):
    """Loads graphs."""

    name: str

    def load(self, path: Path, spec: GraphSpec, precision: Precision) -> GraphRunner:
        """Raises EngineError: the graph cannot be loaded here, or does not follow the contract."""
        ...


def checked_feeds(
    spec: GraphSpec, precision: Precision, feeds: Feeds, without: str = "", held: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """`feeds` as contiguous arrays of the contract's types, bf16 as uint16 (see `devil.runtime.engines.half`).

    Args:
        without: inputs whose names start so are not expected (a bound cache).
        held: inputs whose feeds lie on a device: they are expected, and left out of what comes back.

    Raises:
        EngineError: names, number of dimensions, fixed sizes or types differ from the contract.
    """
    expected = {tensor.name: tensor for tensor in spec.inputs if not (without and tensor.name.startswith(without))}
    if feeds.keys() != expected.keys():
        differing = ", ".join(sorted(feeds.keys() ^ expected.keys()))
        raise EngineError(f"graph {spec.name!r} and what it is fed differ in: {differing}")
    arrays = {}
    for name, tensor in expected.items():
        if name in held:
            continue
        array = stacked(feeds[name])
        fits = array.ndim == len(tensor.shape) and all(
            isinstance(size, str) or size == given for size, given in zip(tensor.shape, array.shape, strict=True)
        )
        if not fits:
            raise EngineError(f"{spec.name}.{name} has shape {array.shape}, the contract says {tensor.shape}")
        dtype = tensor.numpy_dtype(precision)
        if array.dtype.name != dtype and not (tensor.dtype == "float" and array.dtype.kind == "f"):
            raise EngineError(f"{spec.name}.{name} is {array.dtype}, the contract says {dtype}")
        arrays[name] = stored(array, dtype)
    return arrays


def stacked(feed: np.ndarray | Sequence[Row]) -> np.ndarray:
    """A feed as one array."""
    return feed if isinstance(feed, np.ndarray) else np.stack([np.asarray(row) for row in feed])
