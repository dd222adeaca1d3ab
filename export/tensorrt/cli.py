"""devil-build: engines for a bundle, on the machine that will run them or ahead of time."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from devil.bundle import open_bundle, read_manifest
from devil.command import Flag, run_command
from devil.errors import EngineError
from devil.export.tensorrt.build import Outcome, build_engines, check_gpus
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.profiles import check_sizes
from devil.export.tensorrt.target import NoEngines, choose
from devil.progress import ProgressBars


@dataclass(frozen=True)
class BuildOptions:
    """Build engines for a bundle.

    They go into its folder engines/, and the runtime takes those that fit the machine. What is there and fits is kept.
    Needs no PyTorch.
    """

    bundle: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="BUNDLE")]
    """Folder that devil-export wrote."""

    engines: tyro.conf.OmitArgPrefixes[EngineOptions] = field(default_factory=EngineOptions)

    json: Flag = False
    """Print the result as one JSON document on the last line of stdout."""

    debug: Flag = False
    """Show the traceback of an error."""


def main(args: list[str] | None = None) -> int:
    return run_command(BuildOptions, run, "devil-build", args)


def run(options: BuildOptions) -> dict[str, Any]:
    """Does what `devil-build` does; the result as JSON values.

    Raises:
        UsageError: sizes that cannot be meant, or that the model does not have.
        BundleError: no bundle, or an altered one.
        EngineError: there is nothing to build them with or for, or a GPU does not compute in a graph's precision.
    """
    options.engines.check()
    manifest = read_manifest(options.bundle)
    check_sizes(manifest.config, manifest.frame_size, options.engines)
    check_gpus(manifest, options.engines, options.engines.capabilities)
    target = choose(options.engines)
    if isinstance(target, NoEngines) and options.engines.backend == "auto":
        ahead = "name the GPUs that will run them, as in --target sm89 sm120, or build on the machine that has one"
        raise EngineError(f"no engines were built: {target.reason}", ahead)
    with ProgressBars() as progress:
        progress("opening the bundle", 0, 1)
        bundle = open_bundle(options.bundle)
        progress("opening the bundle", 1, 1)
        outcome = build_engines(bundle, options.engines, target, progress)
    summarise(outcome)
    return {"bundle": str(options.bundle), **outcome_values(outcome)}


def outcome_values(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON values."""
    target = outcome.target
    if isinstance(target, NoEngines):
        return {"backend": "onnxruntime", "reason": target.reason, "engines": []}
    engines = [
        {
            "graph": built.engine.key.graph,
            "file": built.engine.path.name,
            "bytes": built.engine.bytes,
            "reused": built.reused,
            **built.engine.built,
        }
        for built in outcome.engines
    ]
    return {
        "backend": target.backend,
        "version": target.version,
        "capabilities": list(target.capabilities),
        "engines": engines,
    }


def summarise(outcome: Outcome) -> None:
    """Says on stdout what was built, or why nothing was."""
    from rich.console import Console
    from rich.table import Table

    console, target = Console(file=sys.stdout, soft_wrap=True, highlight=False), outcome.target
    if isinstance(target, NoEngines):
        console.print(f"no engines: {target.reason}", markup=False)
        return
    table = Table("engine", "MB", "seconds", box=None)
    for built in outcome.engines:
        seconds = "kept" if built.reused else f"{built.engine.built['seconds']:.1f}"
        table.add_row(built.engine.path.name, f"{built.engine.bytes / 1e6:.1f}", seconds)
    console.print(table)
    lowering = f"plugin {target.plugin.name}" if target.plugin else "the graphs' function (GridSample)"
    console.print(
        f"{target.backend} {target.version} for {', '.join(target.capabilities)}; deformable attention: {lowering}",
        markup=False,
    )


if __name__ == "__main__":
    sys.exit(main())
