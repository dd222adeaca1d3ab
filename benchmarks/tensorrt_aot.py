"""Engines built ahead of time with TensorRT-RTX, without a GPU: seconds, size of the engines, memory of the builder.

All graphs of devil-tiny; the detector of the published size (Swin-B, frames of 360 × 640) and two layers of its
language model, with random weights. Each graph is built in a process of its own, for three compute capabilities at
once; seconds are those of that process, from reading the graph to the engine on the disk. --quick leaves out the
published sizes. Exporting needs PyTorch and is not counted.

python benchmarks/tensorrt_aot.py [--quick] [--target sm86 sm89 sm120] [--folder DIR] [--json]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import Row, command_line, figure, report

TINY_SECONDS = 60
DETECTOR_SECONDS = 600
DETECTOR_GB = 8
FRAME = "360x640"


@dataclass(frozen=True)
class Options:
    quick: bool = False
    """Only devil-tiny."""
    target: tuple[str, ...] = ("sm86", "sm89", "sm120")
    """Compute capabilities to build for."""
    folder: Path | None = None
    """Where to write 12 GB, with --quick 0.2 GB; by default a temporary folder."""
    json: bool = False
    """End with one JSON document."""


def exported(folder: Path, precision: str, graphs: Sequence[str], checkpoint: Path | None = None, **options):
    """Writes graphs of a checkpoint as a bundle, without comparing them with PyTorch; other graphs stay empty."""
    from devil.bundle import TOKENIZER, Bundle, FileRecord, Manifest, write_manifest
    from devil.contract import GRAPHS
    from devil.export.opening import open_builder
    from devil.export.options import ExportOptions
    from devil.export.plan import Plan
    from devil.export.write import write_graph

    asked = ExportOptions(model=checkpoint, precision=precision, output=folder, **options)
    builder, plan, files = open_builder(asked), Plan.of_options(asked), {}
    folder.mkdir(parents=True)
    for graph in graphs:
        files |= write_graph(folder, graph, builder, plan)
    for name in (*(f"{graph}.onnx" for graph in GRAPHS if graph not in graphs), TOKENIZER):
        (folder / name).touch()
        files[name] = FileRecord.of(folder / name)
    manifest = Manifest(asked.model_name, precision, builder.model.devil, files, builder.frame_size, **plan.manifest)
    write_manifest(folder, manifest)
    return Bundle(folder, manifest)


def rows_of(case: str, bundle, graphs: Sequence[str], target: Sequence[str]) -> tuple[list[Row], float, float]:
    """Builds graphs; rows about each, and seconds and the most GB of all of them."""
    from devil.export.tensorrt.build import build_engines
    from devil.export.tensorrt.options import EngineOptions
    from devil.export.tensorrt.target import choose

    asked = EngineOptions(backend="tensorrt-rtx", target=tuple(target), graphs=tuple(graphs))
    rows, seconds, peak = [], 0.0, 0.0
    for built in build_engines(bundle, asked, choose(asked)).engines:
        engine, graph = built.engine, f"{case}, {built.engine.key.graph}"
        rows += [
            figure(graph, engine.built["seconds"], "s"),
            figure(f"{graph}, processor time", engine.built["cpu_seconds"], "s"),
            figure(f"{graph}, engine", engine.bytes / 1e6, "MB"),
            figure(f"{graph}, builder's memory", engine.built["peak_bytes"] / 1e9, "GB"),
        ]
        seconds += engine.built["seconds"]
        peak = max(peak, engine.built["peak_bytes"] / 1e9)
        engine.path.unlink()
        engine.sidecar.unlink()
    return rows, seconds, peak


def tiny(folder: Path, target: Sequence[str]) -> list[Row]:
    from devil.contract import GRAPHS

    case = "devil-tiny fp16"
    rows, seconds, _ = rows_of(case, exported(folder / "tiny", "fp16", GRAPHS), GRAPHS, target)
    return [*rows, figure(f"{case}, all", seconds, "s", f"≤ {TINY_SECONDS} s", seconds <= TINY_SECONDS)]


def published(folder: Path, target: Sequence[str]) -> list[Row]:
    from devil.model.random_checkpoint import RandomCheckpointOptions, write_random_checkpoint

    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        write_random_checkpoint(RandomCheckpointOptions(output=checkpoint, size="7b", layers=2))
    case, graphs = f"Swin-B fp16, {FRAME}", ("backbone", "grounder")
    bundle = exported(folder / "detector", "fp16", graphs, checkpoint, frame_size=FRAME)
    rows, seconds, peak = rows_of(case, bundle, graphs, target)
    rows += [
        figure(f"{case}, both", seconds, "s", f"≤ {DETECTOR_SECONDS} s", seconds <= DETECTOR_SECONDS),
        figure(f"{case}, builder's memory", peak, "GB", f"≤ {DETECTOR_GB} GB", peak <= DETECTOR_GB),
    ]
    for precision in ("int4", "fp16"):
        bundle = exported(folder / precision, precision, ("language",), checkpoint)
        rows += rows_of(f"2 layers of 7B, {precision}", bundle, ("language",), target)[0]
    return rows


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        found = tiny(folder, options.target)
        if not options.quick:
            found += published(folder, options.target)
    report("tensorrt_aot", found, options.json)


if __name__ == "__main__":
    main(command_line(Options, __doc__))
