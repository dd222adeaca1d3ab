"""Exporting the language model of a 7-billion checkpoint with random weights: wall time, memory, size.

The whole folder is written once (15 GB, --quick: two of its 28 layers). Each export runs in a process of its own; the
copy it is compared with writes as many bytes and syncs them too. Time does not count importing PyTorch.
--whole exports the vision encoder and the detector as well; most of their time is tracing, which no copy compares with.

python benchmarks/export_scale.py [--quick] [--whole] [--folder DIR] [--json]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from harness import Row, command_line, faster, figure, report

MOST_MB = {"fp16": 1500, "linked": 300, "int4": 2500}
SLOWER = 1.5  # than a copy
LINKED_SECONDS = 10
INT4_GB = 5.2
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Options:
    quick: bool = False
    """Two decoder layers instead of 28."""
    whole: bool = False
    """Also export whole bundles."""
    folder: Path | None = None
    """Where to write; by default a temporary folder. A checkpoint in its subfolder `checkpoint` is used as it is."""
    json: bool = False
    """End with one JSON document."""
    child: str = ""
    """Only make this one export of `folder` and print what it took."""


def export_options(kind: str, folder: Path):
    from devil.export.options import ExportOptions

    precision = "fp16" if kind == "linked" else kind
    return ExportOptions(
        model=folder / "checkpoint", output=folder / "bundle", precision=precision, link_weights=kind == "linked"
    )


def export_language(kind: str, folder: Path) -> None:
    """Writes only the language graph, without checking it."""
    from devil.config_json import load_config
    from devil.export.graphs import GraphBuilder
    from devil.export.plan import Plan
    from devil.export.write import write_graph
    from devil.model.fitting import empty_model
    from devil.model.weights import open_weights

    options = export_options(kind, folder)
    options.bundle.mkdir()
    builder = GraphBuilder(
        empty_model(load_config(options.checkpoint)), source=open_weights(options.checkpoint), keep=False
    )
    write_graph(options.bundle, "language", builder, Plan.of_options(options))


def export_whole(kind: str, folder: Path) -> None:
    from devil.export.bundle import export

    export(export_options(kind, folder))


def child(name: str, folder: Path) -> dict[str, float]:
    """Seconds with the written bytes on the disk, and the most anonymous memory of this process in MB."""
    import devil.export.bundle
    import devil.export.write  # noqa: F401 - imports do not count

    what, kind = name.split("-")
    peak, over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, anonymous_kb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    {"language": export_language, "whole": export_whole}[what](kind, folder)
    os.sync()
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    return {"seconds": seconds, "peak_mb": peak / 1024}


def anonymous_kb() -> int:
    """Anonymous memory of this process now."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon:"))


def run(name: str, folder: Path) -> dict[str, float]:
    """One export in a process of its own; adds the bytes of its files."""
    shutil.rmtree(folder / "bundle", ignore_errors=True)
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found | {"bytes": sum(path.stat().st_size for path in (folder / "bundle").iterdir())}


def copy(folder: Path, count: int) -> float:
    """Seconds to copy so many bytes of the checkpoint's files to another file, and onto the disk."""
    start, left = time.perf_counter(), count
    with (folder / "copy").open("wb") as target:
        for path in sorted((folder / "checkpoint").glob("*.safetensors")):
            with path.open("rb") as source:
                while left and (chunk := source.read(min(_CHUNK, left))):
                    target.write(chunk)
                    left -= len(chunk)
    os.sync()
    seconds = time.perf_counter() - start
    (folder / "copy").unlink()
    return seconds


def make_checkpoint(folder: Path, layers: int | None) -> None:
    from devil.model.random_checkpoint import RandomCheckpointOptions, write_random_checkpoint

    if not folder.exists():
        write_random_checkpoint(RandomCheckpointOptions(output=folder, size="7b", layers=layers))


def rows(folder: Path, whole: bool) -> list[Row]:
    made = run("language-fp16", folder)
    copied = copy(folder, int(made["bytes"]))
    size = f"{made['bytes'] / 1e9:.1f} GB of fp16"
    goal = f"≤ {SLOWER:g}×"
    found = [
        Row(
            f"language graph, {size}",
            "plain copy",
            made["seconds"],
            copied,
            "s",
            copied / made["seconds"],
            goal,
            made["seconds"] <= SLOWER * copied,
        ),
        memory(f"language graph, {size}", "fp16", made),
    ]
    linked = run("language-linked", folder)
    case = "language graph, linked"
    met = linked["seconds"] <= LINKED_SECONDS
    found += [
        figure(case, linked["seconds"], "s", f"≤ {LINKED_SECONDS} s", met),
        memory(case, "linked", linked),
    ]
    small = run("language-int4", folder)
    case = "language graph, int4"
    found += [
        figure(case, small["seconds"], "s"),
        memory(case, "int4", small),
        faster("language graph, int4, bytes", "fp16", small["bytes"] / 1e9, made["bytes"] / 1e9, "GB"),
    ]
    for kind in ("fp16", "int4") if whole else ():
        made = run(f"whole-{kind}", folder)
        case = f"whole bundle, {kind}"
        found += [figure(case, made["seconds"], "s"), memory(case, kind, made)]
        least = kind == "int4"
        goal, met = (f"≤ {INT4_GB} GB (28 layers)", made["bytes"] <= INT4_GB * 1e9) if least else ("", None)
        found.append(figure(f"{case}, bytes", made["bytes"] / 1e9, "GB", goal, met))
    return found


def memory(case: str, kind: str, made: dict[str, float]) -> Row:
    most = MOST_MB[kind]
    return figure(f"{case}, anonymous memory", made["peak_mb"], "MB", f"≤ {most}", made["peak_mb"] <= most)


def main(options: Options) -> None:
    if options.child:
        sys.stdout.write(json.dumps(child(options.child, options.folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        make_checkpoint(folder / "checkpoint", 2 if options.quick else None)
        found = rows(folder, options.whole)
        shutil.rmtree(folder / "bundle")
    report("export_scale", found, options.json)


if __name__ == "__main__":
    main(command_line(Options, __doc__))
