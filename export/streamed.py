"""Weights that are made piece by piece, so that writing a model of any size takes the memory of one piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from devil.errors import CheckpointError
from devil.model.sources.finite import all_finite

Pieces = Callable[[], Iterator[np.ndarray]]  # uint8 arrays that make the stored bytes one after another

_PIECE = 1 << 22  # values converted together


class StreamedTensor(ir.LazyTensor):
    """A tensor whose bytes can be had in pieces; like any ONNX IR tensor it can also be read whole.

    Args:
        pieces: gives the stored bytes, anew at every call.
    """

    def __init__(self, pieces: Pieces, dtype: ir.DataType, shape: tuple[int, ...], name: str):
        super().__init__(self.whole, dtype, ir.Shape(shape), name=name)
        self.pieces = pieces

    def whole(self) -> ir.TensorProtocol:
        """The tensor in memory."""
        stored = np.concatenate(list(self.pieces()))
        shape = self.shape.numpy()
        if self.dtype.bitwidth < 8:
            return ir.PackedTensor(stored, self.dtype, shape=shape, name=self.name)
        return ir.tensor(stored.view(self.dtype.numpy()).reshape(shape), dtype=self.dtype, name=self.name)


def converted(tensor: Tensor, dtype: torch.dtype, key: str) -> Iterator[np.ndarray]:
    """The bytes of `tensor` as `dtype`, row-major; without a copy where it has that type.

    Raises:
        CheckpointError: a value is too large for the type, or is no number.
    """
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), _PIECE):
        piece = flat[start : start + _PIECE].to(dtype).contiguous()
        if tensor.dtype != dtype and not all_finite(piece):  # as it was, it has been looked at when it was read
            raise CheckpointError(
                f"{key} has values that {_SHORT[dtype]} cannot hold", "export with --precision bf16 or fp32"
            )
        yield piece.view(torch.uint8).numpy()


_SHORT = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
