"""Checkpoint folder → bundle folder: build, save and verify the graphs, then say so in the manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from devil.bundle import TOKENIZER, FileRecord, Manifest, bundle_files, write_manifest
from devil.config import level_shapes
from devil.contract import GRAPHS, Precision
from devil.errors import CheckpointError, ConfigError, OutputError
from devil.export.graphs import GraphBuilder
from devil.export.onnx_file import save_model
from devil.export.options import ExportOptions
from devil.export.verify import verify
from devil.files import atomic_directory
from devil.model.checkpoint import load_model
from devil.prompt import PromptWriter

OnStage = Callable[[str], None]  # is told what begins

_TOOLS = ("devil-deploy", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime")


def export(options: ExportOptions, on_stage: OnStage = lambda _: None) -> Path:
    """Exports a checkpoint.

    Args:
        options: what to export and where to.
        on_stage: is called with a short phrase when a stage begins.

    Returns:
        The bundle's folder.

    Raises:
        CheckpointError: the checkpoint is missing, broken, or does not fit the precision.
        ConfigError: the frame size is malformed or too small for the model.
        ExportFidelityError: a graph differs from PyTorch by more than its budget; nothing is left behind.
        OutputError: something lies at the output path, or it cannot be written.
    """
    check_output(options.bundle, options.force)
    size = options.fixed_size
    on_stage("reading the checkpoint")
    model = load_model(options.checkpoint)
    builder = GraphBuilder(model, size)
    if size and sum(height * width for height, width in level_shapes(*size)) < model.devil.detector.queries:
        raise ConfigError(f"frames of {size[0]}x{size[1]} are too small for this detector", "use a larger --frame-size")
    tokenizer = options.checkpoint / TOKENIZER
    if not tokenizer.is_file():
        raise CheckpointError(f"{tokenizer} is missing", "copy the checkpoint again")
    PromptWriter(tokenizer, model.devil)  # refuses another model's tokenizer now, not when the bundle is used
    write_bundle(builder, options.precision, tokenizer, options.model_name, options.bundle, on_stage)
    return options.bundle


def write_bundle(
    builder: GraphBuilder, precision: Precision, tokenizer: Path, name: str, output: Path, on_stage: OnStage
) -> None:
    """Writes all of a bundle or nothing; `name` is the model's in the manifest."""
    fidelity = {}
    with atomic_directory(output) as folder:
        for graph in GRAPHS:
            path = folder / f"{graph}.onnx"
            on_stage(f"{graph}: building")
            save_model(builder.build(graph, precision), path)
            on_stage(f"{graph}: comparing with PyTorch")
            fidelity[graph] = asdict(verify(path, graph, builder.model, precision, builder.frame_size))
        shutil.copyfile(tokenizer, folder / TOKENIZER)
        files = {path.name: FileRecord.of(path) for path in sorted(folder.iterdir())}
        versions = {tool: metadata.version(tool) for tool in _TOOLS}
        manifest = Manifest(name, precision, builder.model.devil, files, builder.frame_size, fidelity, versions)
        write_manifest(folder, manifest)


def check_output(path: Path, force: bool) -> None:
    """Refuses to replace anything but a bundle, and a bundle only by `force`.

    Raises:
        OutputError: with what lies there.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    known = bundle_files(path)
    foreign = sorted({entry.name for entry in path.iterdir()} - known) if known else []
    if not known:
        raise OutputError(f"{path} exists and is not a bundle", "choose another --output")
    if foreign:
        raise OutputError(f"{path} also holds {foreign[0]}, which is no part of the bundle", "move it elsewhere")
    if not force:
        raise OutputError(f"{path} already holds a bundle", "pass --force to replace it or choose another --output")
