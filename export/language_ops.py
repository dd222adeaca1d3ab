"""Writing the language graph's nodes: a scope for names, weights that are read only when the file is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from devil.contract import FLOAT, Precision
from devil.errors import CheckpointError
from devil.export.onnx_file import onnx_type

if TYPE_CHECKING:
    import onnx_ir as ir

Weights = Callable[[str], Any]  # checkpoint key → something NumPy can read


class GraphWriter:
    """Collects the nodes and weights of one graph in one precision.

    Args:
        weights: gives the tensor of a checkpoint key. It is called when the file is written, one tensor at a time,
            so that memory stays bounded by the largest of them.
        precision: type of the weights and of what flows between the nodes.
    """

    def __init__(self, weights: Weights, precision: Precision):
        import onnx_ir as ir

        self.tape = ir.tape.Tape()
        self.precision = precision
        self.float = onnx_type(FLOAT[precision])
        self._weights = weights
        self._shared: dict[str, ir.Value] = {}
        self._scope: tuple[str, ...] = ()

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Nodes written inside carry `name` in front of theirs."""
        outer, self._scope = self._scope, (*self._scope, name)
        try:
            yield
        finally:
            self._scope = outer

    def op(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """One node with one output."""
        name = "/".join((*self._scope, f"{kind}_{len(self.tape.nodes)}"))
        return self.tape.op(kind, inputs, attributes, name=name)

    def constant(self, name: str, values: Any, dtype: str = "int64") -> ir.Value:
        """A small constant, written once per name."""
        import onnx_ir as ir

        if name not in self._shared:
            self._shared[name] = self.tape.initializer(ir.tensor(np.asarray(values, dtype), name=name))
        return self._shared[name]

    def weight(self, key: str, shape: tuple[int, ...], *, transposed: bool = False, full: bool = False) -> ir.Value:
        """The checkpoint's tensor `key`, stored once.

        Args:
            shape: its shape in the checkpoint.
            transposed: store [K, N] where the checkpoint has [N, K], so that MatMul reads it as it lies.
            full: store float32 whatever the precision of the graph.
        """
        import onnx_ir as ir

        if key not in self._shared:
            kind = ir.DataType.FLOAT if full else self.float
            stored = shape[::-1] if transposed else shape
            tensor = ir.LazyTensor(
                lambda: ir.tensor(self._read(key, shape, transposed, kind.numpy()), dtype=kind, name=key),
                kind,
                ir.Shape(stored),
                name=key,
            )
            self._shared[key] = self.tape.initializer(tensor)
        return self._shared[key]

    def linear(self, x: ir.Value, key: str, outputs: int, inputs: int, bias: bool = False) -> ir.Value:
        """`x · Wᵀ (+ b)` with the checkpoint's `key.weight` [outputs, inputs] and `key.bias` [outputs]."""
        y = self.op("MatMul", x, self.weight(f"{key}.weight", (outputs, inputs), transposed=True))
        return self.op("Add", y, self.weight(f"{key}.bias", (outputs,))) if bias else y

    def cast(self, x: ir.Value, full: bool = False) -> ir.Value:
        """`x` in the graph's precision, or in float32."""
        import onnx_ir as ir

        return self.op("Cast", x, to=ir.DataType.FLOAT if full else self.float)

    def _read(self, key: str, shape: tuple[int, ...], transposed: bool, dtype: np.dtype) -> np.ndarray:
        values = np.asarray(self._weights(key))
        if values.shape != shape:
            raise CheckpointError(
                f"{key} has shape {values.shape}, config.json says {shape}", "use the config.json of these weights"
            )
        with np.errstate(over="ignore"):
            converted = np.ascontiguousarray((values.T if transposed else values).astype(dtype, copy=False))
        if not np.isfinite(converted).all():
            raise CheckpointError(
                f"{key} has values that {self.precision} cannot hold", "export with --precision bf16 or fp32"
            )
        return converted
