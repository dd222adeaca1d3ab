"""What the benchmarks share: flags, rows with a goal, paired medians, the machine, and one JSON document at the end."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from devil.errors import UsageError
from devil.usage import parse_options

Options = TypeVar("Options")

PACKAGES = ("torch", "transformers", "onnxruntime", "onnx", "numpy", "av")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        case: what was measured.
        contender: what it is compared with; empty for an absolute figure.
        ours, theirs: the two measurements; theirs is None for an absolute figure.
        unit: of both.
        ratio: theirs / ours for times (above 1: ours is faster); None for other figures.
        goal: what was to be reached, in words.
        met: whether it was; None where no goal was set.
    """

    case: str
    contender: str
    ours: float
    theirs: float | None
    unit: str
    ratio: float | None
    goal: str
    met: bool | None


def figure(case: str, value: float, unit: str, goal: str = "", met: bool | None = None) -> Row:
    """An absolute figure."""
    return Row(case, "", value, None, unit, None, goal, met)


def faster(case: str, contender: str, ours: float, theirs: float, unit: str, least: float | None = None) -> Row:
    """Times side by side; `least` is the ratio theirs / ours to reach."""
    ratio = theirs / ours
    goal, met = (f"≥ {least:g}×", ratio >= least) if least is not None else ("", None)
    return Row(case, contender, ours, theirs, unit, ratio, goal, met)


def paired_medians(
    contenders: list[Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median seconds of each contender, run in turns so that a slow moment hits all of them; one warm-up round."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for turn in range(rounds + 1):
        for index, contender in enumerate(contenders):
            start = clock()
            contender()
            if turn:
                seconds[index].append(clock() - start)
    return [statistics.median(values) for values in seconds]


def command_line(options: type[Options], description: str | None = None) -> Options:
    """What this process was called with, as `options`, a frozen dataclass; what cannot be read ends it with one line.

    Args:
        description: for `--help`; by default the docstring of `options`.
    """
    prog = Path(sys.argv[0]).name
    try:
        return parse_options(options, prog, None, description=description)
    except UsageError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        sys.exit(error.exit_code)


def machine() -> dict[str, object]:
    """Processor, threads and versions, for the record."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
    }


def report(name: str, rows: list[Row], as_json: bool) -> None:
    """Prints a table, and with `as_json` the document as the last line."""
    lines = [f"{name}: {_processor()}"]
    for row in rows:
        against = f"  {row.theirs:.4g} {row.contender}" if row.theirs is not None else ""
        against += f"  {row.ratio:.2f}×" if row.ratio is not None else ""
        verdict = {None: "", True: "  met", False: "  MISSED"}[row.met]
        goal = f"  (goal {row.goal}{verdict})" if row.goal else ""
        lines.append(f"  {row.case:58} {row.ours:10.4g} {row.unit}{against}{goal}")
    if as_json:
        lines.append(json.dumps({"name": name, "machine": machine(), "results": [asdict(row) for row in rows]}))
    sys.stdout.write("\n".join(lines) + "\n")


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
