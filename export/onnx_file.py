"""What every graph's file shares: the names of its types, and writing weights that are read one at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from devil.bundle import FileRecord

if TYPE_CHECKING:
    import onnx_ir as ir

    from devil.export.weight_file import Wrote

EXTERNAL_FROM = 1024  # bytes; smaller tensors stay in the graph, where a reader can see them


def onnx_type(name: str) -> ir.DataType:
    """The ONNX type of a NumPy type's name."""
    import onnx_ir as ir

    return ir.DataType[{"float32": "FLOAT"}.get(name, name.upper())]


def save_model(model: ir.Model, path: Path) -> tuple[Path, Path]:
    """Writes `path` and, beside it, `path`.data with the weights; returns both."""
    store_model(model, path)
    return path, data_path(path)


def data_path(path: Path) -> Path:
    """Where the weights of the graph at `path` lie."""
    return path.with_name(f"{path.name}.data")


def weight_bytes(model: ir.Model, path: Path) -> int:
    """How many bytes of weights `store_model` writes beside the graph at `path`."""
    return sum(value.const_value.nbytes for value in _to_write(model, path))


def stored_weight_bytes(path: Path) -> int:
    """How many bytes of weights the graph at `path` reads, in it and beside it."""
    import onnx_ir as ir

    return sum(value.const_value.nbytes for value in ir.load(path).graph.initializers.values())


def store_model(model: ir.Model, path: Path, wrote: Wrote = lambda _: None) -> dict[str, FileRecord]:
    """Writes a graph at `path` and its weights beside it, one at a time; returns what the manifest says of both.

    Weights that lie in a file of that folder already stay there. Not atomic by itself: the files belong to a bundle,
    whose folder is.

    Args:
        wrote: is told the bytes of weights written since the last call.
    """
    import onnx_ir as ir

    from devil.export.streamed import StreamedTensor
    from devil.export.weight_file import WeightFile

    data, records = data_path(path), {}
    values = _to_write(model, path)
    tensors = {value: value.const_value for value in model.graph.initializers.values()}
    try:
        if values:
            with WeightFile(data, wrote) as file:
                for value in values:
                    value.const_value = file.append(value.const_value)
                records[data.name] = file.record()
        for value in tensors:
            if isinstance(value.const_value, StreamedTensor):  # small; what it raises is for the user, unwrapped
                value.const_value = value.const_value.whole()
        graph = ir.to_proto(model).SerializeToString(deterministic=True)
    finally:
        for value, tensor in tensors.items():
            value.const_value = tensor
    path.write_bytes(graph)
    return records | {path.name: FileRecord(len(graph), hashlib.sha256(graph).hexdigest())}


def check_file(path: Path) -> None:
    """The graph at `path` is valid ONNX, and all its types and shapes can be inferred, strictly.

    Weights beside it are taken as inputs: the checker refuses a file of weights that has two names, as linked ones do.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            model.graph.initializer.append(tensor)
    onnx.checker.check_model(model, full_check=True)


def _to_write(model: ir.Model, path: Path) -> list[ir.Value]:
    import onnx_ir as ir

    return [
        value
        for value in model.graph.initializers.values()
        if value.const_value.nbytes >= EXTERNAL_FROM
        and not (isinstance(value.const_value, ir.ExternalTensor) and Path(value.const_value.base_dir) == path.parent)
    ]
