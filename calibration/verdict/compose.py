"""A bundle of some graphs of one bundle and the others of another: what is left of a result that is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from devil.bundle import Bundle, Manifest, write_manifest
from devil.contract import GRAPHS
from devil.files import atomic_directory


def compose(output: Path, original: Bundle, result: Bundle, graphs: Collection[str]) -> Path:
    """Writes a bundle with `graphs` of `result` and everything else of `original`; files are linked where they can be.

    Raises:
        OutputError: the folder cannot be written.
    """
    sources = {graph: result if graph in graphs else original for graph in GRAPHS}
    with atomic_directory(output) as folder:
        files = {}
        for name, record in original.manifest.files.items():
            if not _graph_of(name):
                _place(original.folder / name, folder / name)
                files[name] = record
        for graph, source in sources.items():
            for name, record in source.manifest.files.items():
                if _graph_of(name) == graph:
                    _place(source.folder / name, folder / name)
                    files[name] = record
        write_manifest(folder, _manifest(original.manifest, result.manifest, files, sources))
    return output


def _manifest(original: Manifest, result: Manifest, files: dict, sources: dict[str, Bundle]) -> Manifest:
    manifests = {graph: source.manifest for graph, source in sources.items()}
    quantised = {graph: one.quantisation[graph] for graph, one in manifests.items() if graph in one.quantisation}
    return replace(
        original,
        precision=result.precision if quantised else original.precision,
        files=files,
        quantisation=quantised,
        graph_precisions={graph: one.graph_precision(graph) for graph, one in manifests.items()},
        weight_bytes={graph: one.graph_bytes(graph) for graph, one in manifests.items()},
        fidelity={graph: one.fidelity[graph] for graph, one in manifests.items() if graph in one.fidelity},
        versions={**original.versions, **result.versions},
    )


def _graph_of(name: str) -> str:
    """The graph that a file belongs to; empty for what all share."""
    return next((graph for graph in GRAPHS if name.startswith(f"{graph}.onnx")), "")


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one that has no links
        shutil.copyfile(source, target)
