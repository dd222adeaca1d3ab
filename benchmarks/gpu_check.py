"""Everything that only a GPU can tell, in one call on a machine that has one; the result goes into docs/gpu-results/.

Per engine that runs there (the CUDA provider, TensorRT, TensorRT-RTX): the numeric gate, agreement with the CPU on
synthetic clips, seconds per stage, memory over many sentences, and frames per second of the published detector with
random weights. Then the tests that are marked `gpu`. Every engine is measured in a process of its own, so that one
that dies leaves the others. Needs the `test` extra, and what each engine needs (`devil-doctor`).

python benchmarks/gpu_check.py [--bundle DIR] [--quick] [--json]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from gpu_measures import agreement, detector_speed, growth, stages
from gpu_page import page
from harness import command_line, machine

from devil.engine_key import BACKENDS
from devil.files import write_text
from devil.gpu import read_driver
from devil.signals import signal_name
from devil.tensorrt_api import installed

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "gpu-results"
FRAME = "360x640"


@dataclass(frozen=True)
class Options:
    bundle: Path | None = None
    """Bundle to check; by default devil-tiny in fp16, exported here."""
    quick: bool = False
    """Few clips and sentences, no published detector."""
    output: Path = RESULTS
    """Folder to write to."""
    json: bool = False
    """End with one JSON document."""
    part: str = ""
    """Only measure this engine and print what was found (the check calls itself)."""
    detector: Path | None = None
    """Bundle of the published detector, for --part."""


def main(options: Options) -> None:
    if options.part:
        print_line(measured(options))
        return
    driver = read_driver()
    if driver.problem:
        sys.exit(f"gpu_check: {driver.problem}: {driver.mend}")
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        folder = Path(scratch)
        bundle = options.bundle or exported_tiny(folder / "devil-tiny-fp16")
        detector = None if options.quick else exported_detector(folder)
        found = {
            "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "gpu": driver.gpus[0].name,
            "capability": driver.gpus[0].capability,
            "driver": driver.version,
            "commit": output_of(["git", "rev-parse", "HEAD"]),
            "machine": machine(),
            "doctor": last_json([sys.executable, "-m", "devil.runtime.doctor.cli", str(bundle), "--json"]),
            "engines": {name: check_engine(name, bundle, detector, options.quick) for name in engines()},
            "tests": tests(),
        }
    stem = "-".join(re.findall(r"[a-z0-9]+", found["gpu"].lower())) + f"-{found['when'][:10]}"
    options.output.mkdir(parents=True, exist_ok=True)
    write_text(options.output / f"{stem}.json", json.dumps(found, indent=1) + "\n")
    write_text(options.output / f"{stem}.md", page(found))
    sys.stdout.write(page(found) + f"\nwritten {options.output / stem}.json and .md\n")
    if options.json:
        print_line(found)


def engines() -> list[str]:
    """All that could run here, the CUDA provider first."""
    return ["cuda", *(backend for backend in BACKENDS if backend in installed())]


def check_engine(name: str, bundle: Path, detector: Path | None, quick: bool) -> dict[str, Any]:
    """What one engine did, or why it did not."""
    began = time.perf_counter()
    for folder, graphs in ((bundle, []), (detector, ["--graphs", "backbone", "grounder"])):
        if name not in BACKENDS or folder is None:
            continue
        done = run([sys.executable, "-m", "devil.export.tensorrt.cli", str(folder), "--backend", name, *graphs])
        if done.returncode:
            return {"problem": f"devil-build: {death(done)}"}
    built = time.perf_counter() - began
    command = [sys.executable, __file__, "--part", name, "--bundle", str(bundle)]
    command += ["--quick"] if quick else []
    command += ["--detector", str(detector)] if detector else []
    done = run(command)
    if done.returncode:
        return {"problem": death(done)}
    return {"build_seconds": built, **json.loads(done.stdout.splitlines()[-1])}


def death(done: subprocess.CompletedProcess) -> str:
    """Why a process failed, as one cell of a table."""
    if done.returncode < 0:
        return f"died of {signal_name(-done.returncode)}"
    return last_line(done.stderr).replace("|", "/") or f"ended with exit code {done.returncode}"


def measured(options: Options) -> dict[str, Any]:
    """One engine, in this process."""
    from devil.engine_store import EngineStore
    from devil.runtime.pipeline import Grounder

    began = time.perf_counter()
    grounder = Grounder.open(options.bundle, engine=options.part)
    opened = time.perf_counter() - began
    gates = {engine.path.name: dict(engine.gates) for engine in EngineStore(grounder.bundle).engines()}
    reference = Grounder.open(options.bundle, engine="onnxruntime")
    found = {
        "engine": grounder.engine.name,
        "open_seconds": opened,
        "gates": gates if options.part in BACKENDS else {},
        "agreement": agreement(grounder, reference, clips=3 if options.quick else 20),
        "stages": stages(grounder, rounds=3 if options.quick else 20),
        "growth": growth(grounder, sentences=30 if options.quick else 1000),
    }
    if options.detector:
        found["detector"] = detector_speed(options.detector, options.part, FRAME)
    return found


def exported_tiny(folder: Path) -> Path:
    done = run([sys.executable, "-m", "devil.export", "--precision", "fp16", "--output", str(folder)])
    if done.returncode:
        sys.exit(f"gpu_check: {last_line(done.stderr)}")
    return folder


def exported_detector(folder: Path) -> Path:
    """Backbone and grounder of the published sizes, fixed to one frame size, with random weights."""
    from tensorrt_aot import exported

    from devil.model.random_checkpoint import RandomCheckpointOptions, write_random_checkpoint

    write_random_checkpoint(RandomCheckpointOptions(output=folder / "checkpoint", size="7b", layers=1))
    graphs = ("backbone", "grounder")
    return exported(folder / "detector", "fp16", graphs, folder / "checkpoint", frame_size=FRAME).folder


def tests() -> str:
    """The last line of the tests that need a GPU."""
    done = run([sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider"])
    return last_line(done.stdout)


def run(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def output_of(command: list[str]) -> str:
    return run(command).stdout.strip()


def last_json(command: list[str]) -> Any:
    lines = run(command).stdout.splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def print_line(values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")


if __name__ == "__main__":
    main(command_line(Options))
