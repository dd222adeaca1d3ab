"""devil-export: flags in, a bundle and a short table out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from devil.bundle import Manifest, open_bundle, read_manifest
from devil.command import run_command
from devil.errors import DevilError, EngineError, MissingPackageError
from devil.export.beforehand import check_gpus, check_request
from devil.export.options import ExportOptions
from devil.export.tensorrt.build import build_engines
from devil.export.tensorrt.cli import outcome_values, summarise
from devil.export.tensorrt.target import NoEngines, Target, choose
from devil.progress import ProgressBars

_NEEDED = ("torch", "transformers", "safetensors", "onnx", "onnx_ir", "onnxscript", "onnxruntime")


def main(args: list[str] | None = None) -> int:
    return run_command(ExportOptions, run, "devil-export", args)


def run(options: ExportOptions) -> dict:
    """Exports, shows progress on stderr and a summary on stdout; returns what --json prints."""
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package.replace("_", "-"), "exporting", "export")
    from rich.console import Console
    from rich.markup import escape

    check_request(options)
    target = _target(options)
    what = f"exporting {escape(options.model_name)}"
    with Console(stderr=True).status(what) as status:
        from devil.export.bundle import export

        folder = export(options, lambda stage: status.update(f"{what}: {stage}"))
    manifest = read_manifest(folder)
    _summarise(options, manifest)
    return {
        "bundle": str(folder),
        "model": manifest.model,
        "precision": manifest.precision,
        "bytes": sum(record.bytes for record in manifest.files.values()),
        "fidelity": manifest.fidelity,
        "engines": _engines(folder, options, target),
    }


def _target(options: ExportOptions) -> Target | NoEngines:
    """What engines are built with and for; none where nobody named them and the GPU here does not take the precision.

    Raises:
        EngineError: they were asked for and cannot be built.
    """
    target = choose(options.engines)
    try:
        check_gpus(options, target.capabilities if isinstance(target, Target) else ())
    except EngineError as error:
        if options.engines.backend != "auto":
            raise
        return NoEngines(error.message)
    return target


def _engines(folder: Path, options: ExportOptions, target: Target | NoEngines) -> dict[str, Any]:
    """Builds engines where there is something to build them with; the bundle is there whatever becomes of them."""
    with ProgressBars() as progress:
        try:
            outcome = build_engines(open_bundle(folder, verify=False), options.engines, target, progress)
        except DevilError as error:
            what = f"{folder} was written and runs without engines, but they were not built: {error.message}"
            raise EngineError(what, error.mend) from error
    summarise(outcome)
    return outcome_values(outcome)


def _summarise(options: ExportOptions, manifest: Manifest) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("graph", "MB", "distance from PyTorch fp32", box=None)
    for graph, fidelity in manifest.fidelity.items():
        size = sum(record.bytes for name, record in manifest.files.items() if name.startswith(f"{graph}.onnx"))
        table.add_row(graph, f"{size / 1e6:.1f}", _phrase(fidelity["measures"]))
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    console.print(table)
    if "language" in manifest.quantisation:
        console.print("language: for random prompts, which rounding moves most; devil-eval says what answers lose")
    total = sum(record.bytes for record in manifest.files.values())
    console.print(f"{options.bundle} ({total / 1e6:.1f} MB, {manifest.precision})", markup=False)


def _phrase(measures: dict[str, float]) -> str:
    texts = {
        "relative": "error {:.1e}",
        "cosine": "cosine {:.6f}",
        "matched_iou": "box IoU {:.4f}",
        "same_slots": "same slots {:.0%}",
        "logit": "logit error {:.1e}",
    }
    return ", ".join(texts[name].format(value) for name, value in measures.items())
