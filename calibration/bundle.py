"""A calibrated bundle: the graphs that were quantised, the others as they were, and a manifest that says which."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devil.bundle import Bundle, FileRecord, Manifest, write_manifest
from devil.calibration.beforehand import check_floats
from devil.contract import GRAPHS, CalibratedPrecision
from devil.export.onnx_file import check_file, store_model, stored_weight_bytes
from devil.files import atomic_directory, check_room

if TYPE_CHECKING:
    import onnx_ir as ir

_TOOLS = ("devil-deploy", "onnx-ir", "onnxruntime")


@dataclass(frozen=True)
class Part:
    """One quantised graph.

    Attributes:
        model: its weights may lie in the bundle that it comes from.
        record: what the manifest says of it under `quantisation`.
        error: how far its outputs are from those of the graph it replaces (see `graph_error`); None where that was not
            measured.
    """

    model: ir.Model
    record: Mapping[str, Any]
    error: float | None = None


def check_source(bundle: Bundle) -> None:
    """Refuses what cannot be calibrated.

    Raises:
        CalibrationError: it is quantised already, or its floats do not run here.
    """
    check_floats(bundle.manifest, bundle.folder)


def write_calibrated(
    source: Bundle,
    output: Path,
    precision: CalibratedPrecision,
    parts: Mapping[str, Part],
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes all of a bundle or nothing; the same parts give the same bytes.

    Args:
        source: the bundle of floats; graphs that are no part come from it.
        precision: what was asked for.
        parts: by graph.
        notes: further entries of the manifest's `quantisation`.

    Raises:
        OutputError: the disk has no room, or the folder cannot be written.
    """
    check_room(output, sum(record.bytes for record in source.manifest.files.values()))
    with atomic_directory(output) as folder:
        files, sizes = _copied(source, folder, set(parts)), dict(source.manifest.weight_bytes)
        for graph, part in parts.items():
            files |= store_model(_inferable(part.model), folder / f"{graph}.onnx")
            check_file(folder / f"{graph}.onnx")
            sizes[graph] = stored_weight_bytes(folder / f"{graph}.onnx")
        write_manifest(folder, _manifest(source.manifest, precision, parts, files, sizes, notes or {}))


def _inferable(model: ir.Model) -> ir.Model:
    """A copy without the types and shapes between inputs and outputs, and without the tracer's notes on values: the
    former can be inferred, which `check_file` checks, and of a small model all that is a third of the graph's file."""
    model = model.clone()
    values = [*model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs)]
    outputs = set(model.graph.outputs)
    for value in values:
        value.metadata_props.clear()
        if value not in outputs:
            value.type = value.shape = None
    return model


def _copied(source: Bundle, folder: Path, replaced: set[str]) -> dict[str, FileRecord]:
    """Files of the source that the new bundle needs too: other graphs, and the tokenizer.

    Weights that the source shares with a checkpoint are shared on, where the language graph still reads them.
    """
    records = {}
    for name, record in source.manifest.files.items():
        owner = next((graph for graph in GRAPHS if name.startswith(f"{graph}.onnx")), None)
        if owner in replaced or (record.linked and "language" in replaced):
            continue
        if record.linked:
            with contextlib.suppress(OSError):
                os.link(source.folder / name, folder / name)
        if not (folder / name).exists():
            shutil.copyfile(source.folder / name, folder / name)
        records[name] = record
    return records


def _manifest(
    source: Manifest,
    precision: CalibratedPrecision,
    parts: Mapping[str, Part],
    files: Mapping[str, FileRecord],
    sizes: Mapping[str, int],
    notes: Mapping[str, Any],
) -> Manifest:
    fidelity = dict(source.fidelity)
    for graph, part in parts.items():
        fidelity.pop(graph, None)  # of the graph that it replaces
        if part.error is not None:
            method = f"onnxruntime, recorded frames, against the same graph in {source.graph_precision(graph)}"
            fidelity[graph] = {"method": method, "measures": {"error": part.error}}
    return replace(
        source,
        precision=precision,
        files=files,
        fidelity=fidelity,
        versions={**source.versions, **{tool: metadata.version(tool) for tool in _TOOLS}},
        graph_precisions={graph: source.graph_precision(graph) for graph in GRAPHS},
        quantisation={**{graph: parts[graph].record for graph in GRAPHS if graph in parts}, **notes},
        weight_bytes=sizes,
    )
