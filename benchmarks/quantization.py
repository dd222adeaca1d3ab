"""What devil-calibrate costs in grounding and gains in size and speed.

python benchmarks/quantization.py [--quick] [--json] [--work DIR] [--part accuracy cost rules detector]

accuracy: devil-tiny on held-out clips, calibrated on 32 others: the 8-bit vision encoder and detector, the 4-bit
language model with calibrated integers and with integers rounded to nearest, and all graphs together. cost: what a
calibration takes. rules: what the layers that stay in floats by rule would cost in 8 bits. detector: speed, see
benchmarks/quantised_detector.py.
"""

from __future__ import annotations

import contextlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from harness import Row, command_line, figure, report
from quantised_detector import detector_rows

from devil.bundle import open_bundle
from devil.calibration.bundle import Part, write_calibrated
from devil.calibration.forms import Form
from devil.calibration.graph import GraphCalibration
from devil.calibration.language.graph import bundle_weights
from devil.calibration.options import CalibrateOptions
from devil.calibration.parts import build_parts
from devil.calibration.questions import questions_for
from devil.calibration.rules import KEPT, chosen_by_rule
from devil.calibration.sensitivity.mixed import limits
from devil.calibration.starting import open_recording
from devil.calibration.verdict.budget import Budget
from devil.calibration.verdict.decision import Candidate, Verdict
from devil.calibration.verdict.judge import Judge
from devil.export.bundle import export
from devil.export.language import build_language
from devil.export.options import ExportOptions
from devil.export.scheme import Scheme
from devil.progress import no_progress

_VISUAL = ("vision", "backbone", "grounder")
_FORMS: tuple[Form, ...] = ("int8", "fp8")
_NEAREST = "nearest-int4"


@dataclass(frozen=True)
class Options:
    """Calibrates devil-tiny and a detector of Swin-T's sizes, and says whether the goals are met."""

    quick: bool = False
    """20 held-out clips instead of 200, and fewer rounds."""
    json: bool = False
    """End with one JSON document."""
    work: Path | None = None
    """Keep bundles, recordings and answers in this folder, and continue what lies there."""
    part: tuple[Literal["accuracy", "cost", "rules", "detector"], ...] = ("accuracy", "cost", "rules", "detector")
    """Which figures."""
    threads: int = 1
    """CPU threads of ONNX Runtime and PyTorch."""


def main(options: Options) -> None:
    with contextlib.ExitStack() as stack:
        work = (options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))).absolute()
        rows: list[Row] = []
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the figures
            if set(options.part) != {"detector"}:
                bundles = {precision: exported(work, precision) for precision in ("fp32", "fp16")}
            if "accuracy" in options.part:
                rows += accuracy_rows(bundles, work, options)
            if "cost" in options.part:
                rows += cost_rows(bundles["fp32"], work)
            if "rules" in options.part:
                rows += rule_rows(bundles["fp32"], work, options)
            if "detector" in options.part:
                rows += detector_rows(work, 3 if options.quick else 7, options.threads)
    report("quantization", rows, options.json)


def exported(work: Path, precision: Literal["fp32", "fp16"]) -> Path:
    """devil-tiny's bundle, exported anew unless the folder has one."""
    path = work / f"devil-tiny-{precision}"
    if not path.exists():
        export(ExportOptions(precision=precision, output=path))
    return path


def settings(bundle: Path, work: Path, options: Options, **others: Any) -> CalibrateOptions:
    common = CalibrateOptions(
        bundle=bundle, judge_clips=20 if options.quick else 200, threads=options.threads, work=work / "work"
    )
    return replace(common, **others)


def judged(name: str, options: CalibrateOptions, beside: dict[str, Path] | None = None) -> tuple[Verdict, Judge]:
    """A calibration without its command: the verdict, and who can say what was answered."""
    recording = open_recording(options, options.bundle, no_progress)
    result = recording.work / "result" / name
    budget = Budget(viou=None, text=None)  # the goals are the rows'
    write_calibrated(
        recording.bundle, result, options.precision, build_parts(recording, options, limits(budget), no_progress).graphs
    )
    judge = Judge(
        options.bundle, questions_for(recording, options, no_progress), recording.captures, budget, recording.work,
        options.threads,
    )  # fmt: skip
    return judge.judge(result, beside or {}, accept=True, look_further=False), judge


def cost_rows(bundle: Path, work: Path) -> list[Row]:
    """Time and memory of a whole calibration with 32 clips in a process of its own; one clip is judged."""
    program = Path(sys.executable).with_name("devil-calibrate")
    command = [program, "--bundle", bundle, "--precision", "int4", "--accept", "--judge-clips", "1"]
    with tempfile.TemporaryDirectory(dir=work) as fresh:
        command += ["--work", fresh, "--output", f"{fresh}/out", "--threads", "2"]
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = after.ru_maxrss / 1e6
    return [
        figure("calibration with 32 clips", seconds, "s", "≤ 300", seconds <= 300),
        figure("calibration with 32 clips, processor time", spent, "s"),
        figure("calibration with 32 clips, memory", peak, "GB", "≤ 2", peak <= 2),
    ]


def accuracy_rows(bundles: dict[str, Path], work: Path, options: Options) -> list[Row]:
    """The goals for devil-tiny."""
    source = bundles["fp32"]
    eight, _ = judged("int8-visual", settings(source, work, options, precision="int8", graphs=_VISUAL))
    four, judge = judged(
        "int4-language", settings(source, work, options, precision="int4", graphs=("language",)),
        {_NEAREST: rounded_to_nearest(source, work)},
    )  # fmt: skip
    every, _ = judged("int8-int4", settings(bundles["fp16"], work, options, precision="int4"))
    sizes = [every.candidates[name].bytes for name in (every.result, every.original)]
    ratio = sizes[0] / sizes[1]
    return [
        *change_rows("int8 vision, backbone, grounder", eight.candidates[eight.result], 0.5, 0.97),
        *change_rows("int4 language", four.candidates[four.result], 1.0, None),
        *change_rows("int4 language rounded to nearest", four.candidates[_NEAREST], None, None),
        *rst_rows(judge, four),
        *change_rows("int8 and int4, all graphs, of fp16", every.candidates[every.result], None, None),
        figure("bundle with int8 and int4 over fp16, bytes", ratio, "of 1", "≤ 0.4", ratio <= 0.4),
    ]


def change_rows(name: str, candidate: Candidate, points: float | None, same: float | None) -> list[Row]:
    """Change of m_vIoU in points, and the share of identical texts."""
    change, texts = candidate.changes["m_vIoU"], candidate.agreements["same_text"].value
    lost, low, high = -100 * change.value, -100 * change.high, -100 * change.low
    goals = [f"≤ {points:g}", lost <= points] if points is not None else []
    alike = [f"≥ {same:g}", texts >= same] if same is not None else []
    return [
        figure(f"{name}, {change.count} clips, lost m_vIoU [{low:.2f}, {high:.2f}]", lost, "points", *goals),
        figure(f"{name}, same text", texts, "of 1", *alike),
    ]


def rst_rows(judge: Judge, verdict: Verdict) -> list[Row]:
    """Error of the RSTs of calibrated integers beside those of rounding to nearest, where all said the same."""
    names = (verdict.original, verdict.result, _NEAREST)
    texts = {name: {asked.index: asked.text for asked in judge.replies(name).asked} for name in names}
    original, *others = (judge.replies(name).rsts for name in names)
    alike = [
        index
        for index, text in texts[verdict.original].items()
        if original[index] is not None and all(texts[name].get(index) == text for name in names)
    ]
    errors = [
        statistics.mean(
            float(np.linalg.norm(rsts[index] - original[index]) / np.linalg.norm(original[index])) for index in alike
        )
        for rsts in others
    ]
    ratio = errors[0] / errors[1]
    return [
        figure(f"int4 language, RST error on {len(alike)} clips of one text", errors[0], "of 1"),
        figure("int4 language rounded to nearest, RST error", errors[1], "of 1"),
        figure("int4 language, RST error over that of rounding to nearest", ratio, "of 1", "≤ 0.75", ratio <= 0.75),
    ]


def rounded_to_nearest(source: Path, work: Path) -> Path:
    """The bundle with the language model's weights rounded to nearest, as devil-export does."""
    path, bundle = work / _NEAREST, open_bundle(source)
    if not path.exists():
        scheme = Scheme.of("int4")
        precision = bundle.manifest.graph_precision("language")
        model = build_language(bundle.config.language, bundle_weights(bundle), precision, scheme)
        write_calibrated(bundle, path, "int4", {"language": Part(model, scheme.record("round to nearest"))})
    return path


def rule_rows(bundle: Path, work: Path, options: Options) -> list[Row]:
    """Each graph's error by every range rule, and by the best of them with the layers of one more role in 8 bits."""
    recording = open_recording(settings(bundle, work, options), bundle, no_progress)
    rows = []
    for name in _VISUAL:
        graph = GraphCalibration(recording.bundle, name, recording.captures, recording.work, options.threads)
        for form in _FORMS:
            chosen = chosen_by_rule(graph.layers, form)
            rule, errors = graph.best_rule(chosen)
            rows += [figure(f"{name}, {form}, ranges by {other}, error", value, "") for other, value in errors.items()]
            for role in KEPT:
                more = {layer: form for layer in graph.layers if layer.role == role}
                if more:
                    error = graph.error({**chosen, **more}, rule)
                    rows.append(figure(f"{name}, {form}, {len(more)} layers of role {role!r} too, error", error, ""))
    return rows


if __name__ == "__main__":
    main(command_line(Options))
