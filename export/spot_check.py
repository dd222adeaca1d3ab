"""Samples of the weights that lie in a written file, against the checkpoint's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from devil.errors import ExportFidelityError
from devil.export.quantisation import least_scale
from devil.export.scheme import Scheme
from devil.export.streamed import converted
from devil.model.weights import WeightSource

_SAMPLE = 4096  # values at either end of a tensor
_MOST = {4: 0.25, 8: 0.025}  # error of quantised weights over their own size; that of noise is 0.1 and 0.006


def check_stored(path: Path, source: WeightSource, scheme: Scheme | None) -> None:
    """Reads both ends of every weight that the graph at `path` has beside it.

    Raises:
        ExportFidelityError: one is not the checkpoint's, rounded to its type or to integers.
    """
    protos = onnx.load(path, load_external_data=False).graph.initializer
    stored = {proto.name: _Stored(path.parent, proto) for proto in protos}
    for name, tensor in stored.items():
        if tensor.proto.data_location != onnx.TensorProto.EXTERNAL:
            continue  # small, and written with the graph
        key, _, kind = name.rpartition(".")
        if name in source.entries:
            good = _same(tensor, source.read(name))
        elif kind.startswith("int"):
            good = _near_columns(tensor, stored[f"{key}.scales"], source.read(key), scheme.block)
        elif kind.startswith("rows"):
            good = _near_rows(tensor, stored[f"{key}.row_scales"], source.read(key), scheme.block)
        else:
            continue  # scales, which are read with their codes, and constants
        if not good:
            raise ExportFidelityError(f"{name} beside {path.name} is not the checkpoint's", "export again")


@dataclass(frozen=True)
class _Stored:
    """A tensor of a graph, beside it or, where it is small, in it."""

    folder: Path
    proto: onnx.TensorProto

    def bytes(self, start: int, count: int) -> np.ndarray:
        where = {entry.key: entry.value for entry in self.proto.external_data}
        return np.fromfile(self.folder / where["location"], np.uint8, count, offset=int(where["offset"]) + start)

    def values(self, start: int, count: int) -> np.ndarray:
        """So many values from a flat index on; the index and number of 4-bit values must be even."""
        if self.proto.data_location != onnx.TensorProto.EXTERNAL:
            return onnx.numpy_helper.to_array(self.proto).reshape(-1)[start : start + count]
        kind = onnx.helper.tensor_dtype_to_np_dtype(self.proto.data_type)
        if self.proto.data_type == onnx.TensorProto.INT4:
            packed = self.bytes(start // 2, count // 2)
            return np.stack([packed << 4, packed], 1).reshape(-1).view(np.int8) >> 4
        return self.bytes(start * kind.itemsize, count * kind.itemsize).view(kind)


def _same(tensor: _Stored, expected: Tensor) -> bool:
    """Both ends are those of the checkpoint in the stored type, bit by bit."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.proto.data_type)
    flat, count = expected.reshape(-1), min(_SAMPLE, expected.numel())
    for start in {0, len(flat) - count}:
        wanted = np.concatenate([*converted(flat[start : start + count], getattr(torch, kind.name), tensor.proto.name)])
        if not np.array_equal(tensor.bytes(start * kind.itemsize, len(wanted)), wanted):
            return False
    return True


def _near_columns(codes: _Stored, scales: _Stored, weight: Tensor, block: int) -> bool:
    """The first and the last block of every output [N, K], stored as [K, N], are near the checkpoint's."""
    bits, (outputs, inputs) = int(codes.proto.name[-1]), weight.shape
    for index in {0, inputs // block - 1}:
        found = codes.values(index * block * outputs, block * outputs).reshape(block, outputs).astype(np.float32)
        scale = scales.values(index * outputs, outputs)
        expected = weight[:, index * block : (index + 1) * block].float().numpy()
        if not _near((found * scale.astype(np.float32)).T, expected, bits, scale.dtype):
            return False
    return True


def _near_rows(codes: _Stored, scales: _Stored, weight: Tensor, block: int) -> bool:
    """The first and the last row of a table are near the checkpoint's."""
    bits, (count, width) = int(codes.proto.name[-1]), weight.shape
    stored = codes.proto.dims[1]
    for row in {0, count - 1}:
        packed = codes.bytes(row * stored, stored)
        found = np.concatenate([packed & 15, packed >> 4]) if bits == 4 else packed
        scale = scales.values(row * (width // block), width // block)
        values = (found.astype(np.float32) - 2 ** (bits - 1)) * scale.astype(np.float32).repeat(block)
        if not _near(values, weight[row].float().numpy(), bits, scale.dtype):
            return False
    return True


def _near(found: np.ndarray, expected: np.ndarray, bits: int, scale_type: np.dtype) -> bool:
    """The difference is that of rounding: a share of the weights' own size, or of the least scale where they are tiny.

    Rows of words that no tokenizer has, at the end of many tables, were never trained and are that tiny.
    """
    rounding = _MOST[bits] * np.linalg.norm(expected)
    least = least_scale(getattr(torch, scale_type.name)) * expected.size**0.5
    return bool(np.linalg.norm(found - expected) <= rounding + least)
