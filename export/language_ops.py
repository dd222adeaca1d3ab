"""Writing the language graph's nodes: a scope for names, weights that are read only when the file is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from devil.contract import FLOAT, Precision
from devil.errors import CheckpointError
from devil.export.onnx_file import onnx_type
from devil.export.quantisation import Quantiser, nearest
from devil.export.scheme import Scheme

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import Tensor

Weights = Callable[[str], Any]  # checkpoint key → something PyTorch or NumPy can read


class GraphWriter:
    """Collects the nodes and weights of one graph in one precision.

    Args:
        weights: gives the tensor of a checkpoint key. It is called when the file is written, one tensor at a time,
            so that memory stays bounded by the largest of them.
        precision: type of the weights and of what flows between the nodes.
        scheme: which weights are integers instead.
        quantise: chooses those integers.
    """

    def __init__(
        self, weights: Weights, precision: Precision, scheme: Scheme | None = None, quantise: Quantiser = nearest
    ):
        import onnx_ir as ir

        self.tape = ir.tape.Tape()
        self.precision = precision
        self.float = onnx_type(FLOAT[precision])
        self.scheme = scheme or Scheme(bits=16)
        self._weights, self._quantise = weights, quantise
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

    def weight(self, key: str, shape: tuple[int, ...], *, full: bool = False) -> ir.Value:
        """The checkpoint's tensor `key` as it lies there, stored once.

        Args:
            shape: its shape in the checkpoint.
            full: store float32 whatever the precision of the graph.
        """
        import onnx_ir as ir
        import torch

        from devil.export.streamed import StreamedTensor, converted

        kind = ir.DataType.FLOAT if full else self.float
        dtype = getattr(torch, "float32" if full else FLOAT[self.precision])
        return self._stored(
            key, lambda: StreamedTensor(lambda: converted(self._read(key, shape), dtype, key), kind, shape, key)
        )

    def linear(self, x: ir.Value, key: str, outputs: int, inputs: int, bias: bool = False, name: str = "") -> ir.Value:
        """`x · Wᵀ (+ b)` for x [rows, inputs], with the checkpoint's `key.weight` [outputs, inputs] and `key.bias`.

        Args:
            name: what the layer is for the scheme and for the choice of integers, where the weight is another's.
        """
        biases = [self.weight(f"{key}.bias", (outputs,))] if bias else []
        bits = self.scheme.bits_of(name or key)
        if bits == 16:  # Gemm reads the weight as it lies in the checkpoint, so that it need not be moved
            return self.op("Gemm", x, self.weight(f"{key}.weight", (outputs, inputs)), *biases, transB=1)
        # This very form is what ONNX Runtime turns into its MatMulNBits, and what TensorRT builds.
        codes, scales = self._quantised(f"{key}.weight", (outputs, inputs), bits, chosen_as=f"{name or key}.weight")
        weight = self.op("DequantizeLinear", codes, scales, axis=0, block_size=self.scheme.block)
        y = self.op("MatMul", x, weight)
        return self.op("Add", y, *biases) if bias else y

    def lookup(self, key: str, index: ir.Value, count: int, width: int) -> ir.Value:
        """Rows `index` [n] of the checkpoint's table `key.weight` [count, width]."""
        bits, block = self.scheme.embedding_bits, self.scheme.block
        if bits == 16:
            return self.op("Gather", self.weight(f"{key}.weight", (count, width)), index, axis=0)
        codes, scales = self._quantised(f"{key}.weight", (count, width), bits, f"{key}.weight", rows=True)
        values = self.cast(self.op("Gather", codes, index, axis=0))
        if bits == 4:
            high = self.op("Floor", self.op("Mul", values, self._number(1 / 16)))
            low = self.op("Sub", values, self.op("Mul", high, self._number(16)))
            values = self.op("Concat", low, high, axis=-1)
        values = self.op("Sub", values, self._number(2 ** (bits - 1)))
        values = self.op("Reshape", values, self.constant("shape_blocks", [-1, width // block, block]))
        scale = self.op("Unsqueeze", self.op("Gather", scales, index, axis=0), self.constant("last_axis", [-1]))
        return self.op("Reshape", self.op("Mul", values, scale), self.constant("shape_rows", [-1, width]))

    def cast(self, x: ir.Value, full: bool = False) -> ir.Value:
        """`x` in the graph's precision, or in float32."""
        import onnx_ir as ir

        return self.op("Cast", x, to=ir.DataType.FLOAT if full else self.float)

    def _number(self, value: float) -> ir.Value:
        return self.constant(f"number_{value:g}", value, FLOAT[self.precision])

    def _quantised(
        self, key: str, shape: tuple[int, int], bits: int, chosen_as: str, rows: bool = False
    ) -> tuple[ir.Value, ir.Value]:
        """Codes and scales of a weight, for a lookup of `rows` or for a product.

        Args:
            chosen_as: what the choice of integers knows it by: a tied readout has others than the embedding.
        """
        import torch

        from devil.export.quantised import QuantisedWeight

        self.scheme.check(key, shape[1])
        scale_type = getattr(torch, FLOAT[self.precision])
        weight = QuantisedWeight(
            key, lambda: self._read(key, shape), lambda _, *how: self._quantise(chosen_as, *how), bits,
            self.scheme.block, scale_type,
        )  # fmt: skip
        codes, scales = weight.rows(*shape) if rows else weight.columns(*shape)
        return self._stored(codes.name, lambda: codes), self._stored(scales.name, lambda: scales)

    def _stored(self, name: str, tensor: Callable[[], ir.TensorProtocol]) -> ir.Value:
        if name not in self._shared:
            self._shared[name] = self.tape.initializer(tensor())
        return self._shared[name]

    def _read(self, key: str, shape: tuple[int, ...]) -> Tensor:
        import torch

        values = torch.as_tensor(self._weights(key))
        if tuple(values.shape) != shape:
            raise CheckpointError(
                f"{key} has shape {tuple(values.shape)}, config.json says {shape}",
                "use the config.json of these weights",
            )
        return values
