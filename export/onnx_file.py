"""What every graph's file shares: the names of its types, and writing weights that are read one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

EXTERNAL_FROM = 1024  # bytes; smaller tensors stay in the graph, where a reader can see them


def onnx_type(name: str) -> ir.DataType:
    """The ONNX type of a NumPy type's name."""
    import onnx_ir as ir

    return ir.DataType[{"float32": "FLOAT"}.get(name, name.upper())]


def save_model(model: ir.Model, path: Path) -> tuple[Path, Path]:
    """Writes `path` and, beside it, `path`.data with the weights; returns both.

    Not atomic by itself: the two files belong to a bundle, whose folder is.
    """
    import onnx_ir as ir

    data = path.with_name(f"{path.name}.data")
    ir.save(model, path, external_data=data.name, size_threshold_bytes=EXTERNAL_FROM, max_workers=1)
    return path, data
