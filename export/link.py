"""A language graph whose weights are the checkpoint's own files: linked into the bundle, never copied.

ONNX Runtime reads weights only from the folder of their graph and refuses symbolic links; a hard link is the file
itself under another name. It needs the same disk, and outlives the checkpoint's folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir

from devil.bundle import FileRecord
from devil.contract import FLOAT, Precision
from devil.errors import OutputError
from devil.export.streamed import StreamedTensor
from devil.files import existing_folder
from devil.model.weights import Entry, WeightSource

_MEND = "export without --link-weights"


def check_linkable(source: WeightSource, matrices: Iterable[str], precision: Precision, output: Path) -> None:
    """Refuses, before long work, what `link_weights` would refuse after it.

    Args:
        matrices: keys of the language model's weights that are no vectors.
        output: where the bundle will be written.

    Raises:
        OutputError: a matrix lies there in another type or in no file, or the files cannot be linked.
    """
    dtype, files = FLOAT[precision], set()
    for key in matrices:
        entry = source.entries[key]
        if not _fits(entry, dtype):
            raise OutputError(_misfit(key, entry, dtype), _MEND)
        files.add(entry.place.path.resolve())
    with tempfile.TemporaryDirectory(prefix=".devil-export-", dir=existing_folder(output)) as folder:
        _link(((file, str(index)) for index, file in enumerate(files)), Path(folder))


def link_weights(model: ir.Model, source: WeightSource, path: Path) -> dict[str, FileRecord]:
    """Lets the weights of the graph that will be written at `path` lie where the checkpoint has them.

    Vectors that the graph wants in another type are left to be written beside it.

    Returns:
        What the manifest says of the linked files.

    Raises:
        OutputError: a matrix lies there in another type or in no file, or the files cannot be linked.
    """
    names: dict[Path, str] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, StreamedTensor):
            continue
        entry, dtype = source.entries[value.name], tensor.dtype.numpy().name
        if not _fits(entry, dtype):
            if len(tensor.shape) > 1:
                raise OutputError(_misfit(value.name, entry, dtype), _MEND)
            continue
        place = entry.place
        file = place.path.resolve()
        name = names.setdefault(file, f"{path.name}.weights-{len(names)}{file.suffix}")
        value.const_value = ir.ExternalTensor(
            name, place.offset, place.length, tensor.dtype, shape=tensor.shape, name=value.name, base_dir=path.parent
        )
    _link(names.items(), path.parent)
    return {name: FileRecord.of(path.parent / name, linked=True) for name in names.values()}


def _fits(entry: Entry, dtype: str) -> bool:
    return entry.place is not None and entry.dtype == dtype


def _misfit(key: str, entry: Entry, dtype: str) -> str:
    if entry.place is None:
        return f"{key} lies in no safetensors file as it is, so it cannot be linked"
    return f"{key} is {entry.dtype} in the checkpoint and {dtype} in the graph"


def _link(files: Iterable[tuple[Path, str]], folder: Path) -> None:
    for file, name in files:
        try:
            os.link(file, folder / name)
        except OSError as error:
            raise OutputError(
                f"{file} cannot be linked into the bundle ({error.strerror})",
                f"write the bundle to the checkpoint's disk, or {_MEND}",
            ) from error
