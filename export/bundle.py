"""Checkpoint folder → bundle folder: build, save and verify the graphs, then say so in the manifest."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from devil.bundle import TOKENIZER, FileRecord, Manifest, write_manifest
from devil.contract import GRAPHS
from devil.export.graphs import GraphBuilder
from devil.export.integer_check import verify_integers
from devil.export.layer_check import verify_layers
from devil.export.onnx_file import stored_weight_bytes
from devil.export.opening import open_builder
from devil.export.options import ExportOptions
from devil.export.output import check_output
from devil.export.plan import Plan
from devil.export.verify import Fidelity, verify
from devil.export.write import OnStage, bytes_to_write, write_graph
from devil.files import atomic_directory, check_room
from devil.model.checkpoint import tokenizer_file
from devil.prompt import PromptWriter

_TOOLS = ("devil-deploy", "torch", "transformers", "onnx", "onnx-ir", "onnxscript", "onnxruntime")


def export(options: ExportOptions, on_stage: OnStage = lambda _: None) -> Path:
    """Exports a checkpoint.

    Args:
        options: what to export and where to.
        on_stage: is called with a short phrase when a stage begins.

    Returns:
        The bundle's folder.

    Raises:
        UsageError: the flags contradict each other, or the model does not have the sizes they name.
        CheckpointError: the checkpoint is missing, broken, or does not fit the precision.
        ExportFidelityError: a graph differs from PyTorch by more than its budget; nothing is left behind.
        OutputError: something lies at the output path, it cannot be written, or the weights cannot be linked.
    """
    plan = Plan.of_options(options)
    check_output(options.bundle, options.force)
    on_stage("reading the checkpoint")
    tokenizer = tokenizer_file(options.checkpoint)
    builder = open_builder(options)
    PromptWriter(tokenizer, builder.model.devil)  # refuses another model's tokenizer now, not when the bundle is used
    write_bundle(builder, plan, tokenizer, options.model_name, options.bundle, on_stage)
    return options.bundle


def write_bundle(
    builder: GraphBuilder, plan: Plan, tokenizer: Path, name: str, output: Path, on_stage: OnStage = lambda _: None
) -> None:
    """Writes all of a bundle or nothing; `name` is the model's in the manifest.

    Raises:
        OutputError: the disk has no room for it, or the weights cannot be linked.
        ExportFidelityError: a graph differs from PyTorch by more than its budget.
    """
    check_room(output, bytes_to_write(builder, plan))
    fidelity, files, sizes = {}, {}, {}
    with atomic_directory(output) as folder:
        for graph in GRAPHS:
            files |= write_graph(folder, graph, builder, plan, on_stage)
            sizes[graph] = stored_weight_bytes(folder / f"{graph}.onnx")
            on_stage(f"{graph}: comparing with PyTorch")
            fidelity[graph] = asdict(_verify(folder / f"{graph}.onnx", graph, builder, plan))
        shutil.copyfile(tokenizer, folder / TOKENIZER)
        files[TOKENIZER] = FileRecord.of(folder / TOKENIZER)
        versions = {tool: metadata.version(tool) for tool in _TOOLS}
        manifest = Manifest(
            name, plan.precision, builder.model.devil, files, builder.frame_size, fidelity, versions,
            layers_of=builder.layers_of, weight_bytes=sizes, **plan.manifest,
        )  # fmt: skip
        write_manifest(folder, manifest)


def _verify(path: Path, graph: str, builder: GraphBuilder, plan: Plan) -> Fidelity:
    """Compares a graph whole where PyTorch has the whole of it."""
    if graph == "language" and builder.model.lm_head.weight.is_meta:
        return verify_layers(path, builder, plan)
    if graph == "language" and plan.scheme:
        return verify_integers(path, builder, plan)
    return verify(path, graph, builder.model, plan, builder.frame_size)
