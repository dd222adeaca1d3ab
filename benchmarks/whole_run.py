"""One sentence about the shipped clip, on a bundle of any size: seconds per stage, memory, and what was planned for it.

The detector runs even where the answer names nothing, as that of random weights does, with a seeded RST.

python benchmarks/whole_run.py BUNDLE [--frames N] [--threads N] [--json]
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from harness import Row, command_line, figure, report

from devil.assets import demo_request
from devil.bundle import read_manifest
from devil.runtime.limits import Limits
from devil.runtime.memory_plan import plan
from devil.runtime.pipeline import Grounder
from devil.runtime.stopwatch import Stopwatch


@dataclass(frozen=True)
class Options:
    bundle: Annotated[Path, tyro.conf.Positional]
    """A folder that devil-export wrote."""
    frames: int = 4
    """Frames that are sampled."""
    threads: int = 2
    json: bool = False


def main(options: Options) -> None:
    limits, watch = Limits(frames=options.frames), Stopwatch()
    path, sentence = demo_request()
    with watch.stage("open"):
        grounder = Grounder.open(options.bundle, options.threads, limits)
    opened = _memory("VmHWM")
    video = grounder.encode(path)
    answer = video.ground(sentence)
    for stage, seconds in answer.timings.items():
        watch.add(stage, seconds)
    if answer.rst is None:
        hidden = grounder.config.language.hidden
        rst = np.random.default_rng(0).standard_normal(hidden).astype(np.float32)
        video.tubes.find(rst, None, False, False, watch)
    report("whole_run", [*_rows(options, grounder, answer.decoding["tokens"], watch.seconds, opened)], options.json)


def _rows(options: Options, grounder: Grounder, tokens: int, seconds: dict[str, float], opened: float) -> list[Row]:
    manifest = read_manifest(options.bundle)
    size = sum(file.bytes for file in manifest.files.values())
    case = f"{manifest.model}, {manifest.precision}, {options.frames} frames"
    rows = [figure(f"{case}: {stage}", value, "s") for stage, value in seconds.items()]
    planned = plan(manifest, grounder.config).total / 1e9
    peak = _memory("VmHWM")
    return [
        *rows,
        figure(f"{case}: language, per token of {tokens}", seconds["language"] / tokens, "s"),
        figure(f"{case}: bundle", size / 1e9, "GB"),
        figure(f"{case}: memory when opened", opened, "GB"),
        figure(f"{case}: peak memory", peak, "GB", f"≤ {planned:.2f} planned", peak <= planned),
    ]


def _memory(name: str) -> float:
    """GB of this process, a line of /proc/self/status."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / 1e9


if __name__ == "__main__":
    main(command_line(Options, __doc__))
