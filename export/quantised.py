"""A quantised weight as the tensors of a graph, made from the checkpoint's when the file is written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from devil.errors import CheckpointError
from devil.export.quantisation import Quantiser
from devil.export.streamed import StreamedTensor
from devil.model.sources.finite import all_finite

_STRETCH = 1 << 22  # weights that one thread quantises at a time
_PIECE = 1 << 24  # bytes handed on together
_MOST_THREADS = 8  # each takes the memory of a stretch


class QuantisedWeight:
    """Codes and scales of one weight [N, K].

    Both tensors come from one computation: it is done when the codes are asked for, and the scales, which are a few
    per cent of them, wait until they are asked for too.

    Args:
        key: its name in the checkpoint.
        read: gives the weight.
        quantise: chooses codes and scales.
        bits, block: of the codes, and weights along K per scale.
        scale_type: the graph's floating type.
    """

    def __init__(
        self, key: str, read: Callable[[], Tensor], quantise: Quantiser, bits: int, block: int, scale_type: torch.dtype
    ):
        self.key, self.bits, self.block, self.scale_type = key, bits, block, scale_type
        self._read, self._quantise = read, quantise
        self._scales: Tensor | None = None

    def columns(self, outputs: int, inputs: int) -> tuple[StreamedTensor, StreamedTensor]:
        """Codes [K, N] and scales [K / block, N], as DequantizeLinear in front of MatMul wants them."""
        kind = {4: ir.DataType.INT4, 8: ir.DataType.INT8}[self.bits]
        codes = StreamedTensor(self._column_codes, kind, (inputs, outputs), f"{self.key}.int{self.bits}")
        return codes, self._scale_tensor((inputs // self.block, outputs), transposed=True)

    def rows(self, count: int, inputs: int) -> tuple[StreamedTensor, StreamedTensor]:
        """Codes and scales [N, K / block] to look rows up in.

        Codes are bytes from 0 on, because engines look up bytes but no 4-bit integers: [N, K] for 8 bits; for 4 bits
        [N, K / 2] with column k in the low half of a byte and column k + K / 2 in the high half.
        """
        width = inputs * self.bits // 8
        codes = StreamedTensor(self._row_codes, ir.DataType.UINT8, (count, width), f"{self.key}.rows{self.bits}")
        return codes, self._scale_tensor((count, inputs // self.block), transposed=False)

    def _scale_tensor(self, shape: tuple[int, int], transposed: bool) -> StreamedTensor:
        def pieces() -> Iterator[np.ndarray]:
            if self._scales is None:
                self._compute()
            scales, self._scales = self._scales, None
            if not all_finite(scales):
                raise CheckpointError(f"{self.key} has weights too large for fp16 scales", "use --activations fp32")
            yield (scales.T if transposed else scales).contiguous().reshape(-1).view(torch.uint8).numpy()

        kind = {torch.float16: ir.DataType.FLOAT16, torch.float32: ir.DataType.FLOAT}[self.scale_type]
        return StreamedTensor(pieces, kind, shape, f"{self.key}.{'scales' if transposed else 'row_scales'}")

    def _compute(self) -> np.ndarray:
        """Codes int8 [N, K]; leaves the scales behind."""
        weight = self._read()
        codes = torch.empty(weight.shape, dtype=torch.int8)
        scales = torch.empty(len(weight), weight.shape[1] // self.block, dtype=self.scale_type)

        def stretch(part: slice) -> None:
            rows = weight[part].float()
            if not all_finite(rows):
                raise CheckpointError(f"{self.key} has values that are no numbers", "copy the checkpoint again")
            found = self._quantise(self.key, rows, self.bits, self.block, self.scale_type, part.start)
            codes[part], scales[part] = found

        step = max(1, _STRETCH // weight.shape[1])
        parts = [slice(start, start + step) for start in range(0, len(weight), step)]
        with _one_torch_thread(), ThreadPoolExecutor(_threads()) as pool:
            list(pool.map(stretch, parts))
        self._scales = scales
        return codes.numpy()

    def _column_codes(self) -> Iterator[np.ndarray]:
        flat = np.ascontiguousarray(self._compute().T).reshape(-1)
        for start in range(0, len(flat), _PIECE):
            piece = flat[start : start + _PIECE]
            yield _packed(piece) if self.bits == 4 else piece.view(np.uint8)

    def _row_codes(self) -> Iterator[np.ndarray]:
        codes = self._compute()
        half = codes.shape[1] // 2
        step = max(1, _PIECE // codes.shape[1])
        for start in range(0, len(codes), step):
            piece = (codes[start : start + step] + np.int8(8 if self.bits == 4 else -128)).view(np.uint8)
            yield (piece[:, :half] | piece[:, half:] << 4 if self.bits == 4 else piece).reshape(-1)


def _threads() -> int:
    """As many as there are cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, _MOST_THREADS)


def _packed(codes: np.ndarray) -> np.ndarray:
    """Two 4-bit codes per byte, the first in the low half; int8 [n] to uint8 [n / 2, rounded up]."""
    codes = codes.view(np.uint8) & 15
    if len(codes) % 2:
        codes = np.append(codes, np.uint8(0))
    return codes[0::2] | codes[1::2] << 4


@contextlib.contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Our threads take a stretch each; PyTorch's own would fight them over tensors of a few kilobytes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
