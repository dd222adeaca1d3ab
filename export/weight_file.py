"""The file of weights beside a graph: aligned, hashed while it is written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx_ir as ir

from devil.bundle import FileRecord
from devil.export.streamed import StreamedTensor

Wrote = Callable[[int], None]  # is told how many bytes were written since it was last told

_CHUNK = 1 << 23  # bytes hashed while they are written
_PAGE = 4096  # large tensors begin on one, so that engines can map them
_LINE = 64
_LARGE = 1 << 16


class WeightFile:
    """Appends tensors to a file and knows its digest without reading it again. A context manager."""

    def __init__(self, path: Path, wrote: Wrote):
        self.path = path
        self._wrote = wrote
        self._digest = hashlib.sha256()

    def __enter__(self) -> WeightFile:
        self._file = self.path.open("wb")
        self._hasher = ThreadPoolExecutor(1)
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._hasher.shutdown()
        self._file.close()

    def append(self, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        """Writes a tensor and returns it as a reference to its place in the file."""
        at = self._file.tell()
        padding = -at % (_PAGE if tensor.nbytes >= _LARGE else _LINE)
        self._write(np.zeros(padding, np.uint8))
        for piece in _bytes_of(tensor):
            self._write(piece)
        start = at + padding
        return ir.ExternalTensor(
            self.path.name, start, self._file.tell() - start, tensor.dtype, shape=tensor.shape, name=tensor.name,
            base_dir=self.path.parent,
        )  # fmt: skip

    def record(self) -> FileRecord:
        """What the manifest says of the file."""
        return FileRecord(bytes=self._file.tell(), sha256=self._digest.hexdigest())

    def _write(self, piece: np.ndarray) -> None:
        for start in range(0, len(piece), _CHUNK):
            chunk = memoryview(piece)[start : start + _CHUNK]
            hashed = self._hasher.submit(self._digest.update, chunk)  # on another core, while this one writes
            self._file.write(chunk)
            hashed.result()
            self._wrote(len(chunk))


def _bytes_of(tensor: ir.TensorProtocol) -> Iterator[np.ndarray]:
    if isinstance(tensor, StreamedTensor):
        yield from tensor.pieces()
    else:
        yield np.frombuffer(tensor.tobytes(), np.uint8)
