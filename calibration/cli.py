"""devil-calibrate: a bundle and clips in; a bundle of lower precision, and what it cost, out."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devil.bundle import read_manifest
from devil.calibration.beforehand import check_request
from devil.calibration.options import CalibrateOptions
from devil.command import run_command
from devil.errors import CalibrationError, MissingPackageError, UsageError
from devil.files import write_text
from devil.progress import Progress, ProgressBars

if TYPE_CHECKING:
    from devil.calibration.parts import Parts
    from devil.calibration.starting import Recording
    from devil.calibration.verdict.budget import Budget
    from devil.calibration.verdict.decision import Verdict
    from devil.calibration.verdict.judge import Judge

_NEEDED = ("torch", "onnx", "onnx_ir", "onnxruntime")
_TRIES = 3  # with mixed precision, each with lower limits, until the judgement is in favour


class RefusedError(CalibrationError):
    """The result is worse than its budget, or slower than what it replaces.

    Attributes:
        result: the report.

    Args:
        whole: names of the bundles that were judged beside the result.
    """

    def __init__(self, verdict: Verdict, report: dict[str, Any], whole: Collection[str]):
        result = verdict.candidates[verdict.result]
        fine = verdict.budget.too_fine(result.agreements["same_text"].count)
        hint = f"; {fine}" if fine and result.losses["text"] > verdict.budget.text else ""
        best = verdict.candidates[verdict.alternative or verdict.original]
        is_part = best.name not in {verdict.original, *whole}
        instead = f"--graphs {' '.join(best.graphs)}" if is_part else f"the bundle {best.name} as it is"
        super().__init__(
            f"the result is refused: {'; '.join(verdict.complaints)}",
            f"best within the budget: {instead}; --accept writes the result all the same{hint}",
        )
        self.result = report


def main(args: list[str] | None = None) -> int:
    return run_command(CalibrateOptions, calibrate, "devil-calibrate", args)


def calibrate(options: CalibrateOptions) -> dict[str, Any]:
    """Does what `devil-calibrate` does; the report as JSON values (docs/calibration.md)."""
    for package in _NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package.replace("_", "-"), "calibrating", "export")
    check_request(options)
    from devil.calibration.starting import open_recording
    from devil.calibration.verdict.budget import Budget
    from devil.export.output import check_output
    from devil.runtime.reference_bundle import reference_bundle

    budget = Budget.of(options.precision, options.budget)
    _note(budget, options.judge_clips)
    with ProgressBars() as progress:
        source = options.bundle or reference_bundle(progress)
        output = options.output or Path(f"{read_manifest(source).model}-{options.precision}-calibrated")
        check_output(output, options.force)
        beside = bundles_beside(options.beside, source, output)
        recording = open_recording(options, source, progress)
        verdict, parts, judge = _judged(recording, source, output, budget, beside, options, progress)
        kept = verdict.passed or options.accept
        if kept:  # before the report, which says so
            _keep(recording, output, parts, verdict, options)
        report = _report(verdict, parts, recording, source, output if kept else None, options)
        write_text(output.with_name(f"{output.name}.verdict.json"), json.dumps(report, indent=1) + "\n")
        _write_page(verdict, parts, judge, source, output)
    _summarise(verdict, parts, recording, output, kept)
    if not kept:
        raise RefusedError(verdict, report, beside)
    return report


def bundles_beside(paths: Collection[Path], source: Path, output: Path) -> dict[str, Path]:
    """The bundles of --beside by the names that the report gives them.

    Raises:
        BundleError: one is no bundle.
        UsageError: two have one name, or one is of another model.
    """
    found: dict[str, Path] = {}
    config = read_manifest(source).config
    for path in paths:
        name = path.resolve().name
        if name in {source.resolve().name, output.name, *found}:
            raise UsageError(f"two bundles are named {name}", "rename the folder: the report tells bundles by name")
        if read_manifest(path).config != config:
            raise UsageError(f"{path} is of another model than {source}", "name bundles of the same checkpoint")
        found[name] = path
    return found


def _judged(
    recording: Recording, source: Path, output: Path, budget: Budget, beside: dict[str, Path],
    options: CalibrateOptions, progress: Progress,
) -> tuple[Verdict, Parts, Judge]:  # fmt: skip
    """Quantises and judges; mixed precision is made more careful where the judgement goes against it."""
    from devil.calibration.bundle import write_calibrated
    from devil.calibration.parts import build_parts
    from devil.calibration.questions import questions_for
    from devil.calibration.sensitivity.mixed import limits
    from devil.calibration.verdict.judge import Judge

    questions = questions_for(recording, options, progress)
    if not budget.too_fine(options.judge_clips):  # which was told
        _note(budget, min(len(questions.dataset.cases), options.judge_clips))
    tightness = 1.0
    for _ in range(_TRIES if options.precision == "mixed" else 1):
        parts = build_parts(recording, options, limits(budget, tightness), progress)
        progress("writing", 0, 1)
        result = recording.work / "result" / output.name
        write_calibrated(recording.bundle, result, options.precision, parts.graphs)
        judge = Judge(source, questions, recording.captures, budget, recording.work, options.threads, progress)
        verdict = judge.judge(result, beside, options.accept, look_further=False)
        losses = verdict.candidates[verdict.result].losses
        if not budget.broken(losses):
            break  # fewer lowered layers would make nothing faster
        tightness /= max(2.0, budget.excess(losses))
    if not verdict.passed:
        verdict = judge.judge(result, beside, options.accept)
    return verdict, parts, judge


def _note(budget: Budget, answers: int) -> None:
    """Says on stderr where the budget leaves no answer to change."""
    if phrase := budget.too_fine(answers):
        sys.stderr.write(
            f"devil-calibrate: note: a budget of {budget.text:g} % changed answers lets none change; {phrase}\n"
        )


def _keep(recording: Recording, output: Path, parts: Parts, verdict: Verdict, options: CalibrateOptions) -> None:
    """Writes the bundle; the manifest of one that was accepted against the verdict says so."""
    from devil.calibration.bundle import write_calibrated

    notes = {} if verdict.passed else {"accepted": list(verdict.complaints)}
    write_calibrated(recording.bundle, output, options.precision, parts.graphs, notes)


def _report(
    verdict: Verdict, parts: Parts, recording: Recording, source: Path, written: Path | None, options: CalibrateOptions
) -> dict[str, Any]:
    captures = recording.captures
    measured = {"losses_measured_on": parts.clips.record()} if parts.clips else {}
    return {
        "bundle": str(written) if written else None,
        "source": str(source),
        "precision": options.precision,
        "calibrated_on": {
            "clips": len(captures.clips),
            "megabytes": round(captures.bytes / 1e6, 1),
            "left_out": list(recording.problems),
            **measured,
        },
        "verdict": verdict.to_json(),
    }


def _write_page(verdict: Verdict, parts: Parts, judge: Judge, source: Path, output: Path) -> None:
    from devil.calibration.verdict.page import verdict_page

    page = verdict_page(
        f"{source.resolve().name} → {output.name}", verdict, parts.layers, parts.unit,
        judge.replies(verdict.original), judge.replies(verdict.result),
    )  # fmt: skip
    write_text(output.with_name(f"{output.name}.verdict.html"), page)


def _summarise(verdict: Verdict, parts: Parts, recording: Recording, output: Path, kept: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("bundle", "MB", "ms per clip", "m_tIoU", "m_vIoU", "same text", box=None)
    for candidate in verdict.candidates.values():
        scores, agreements = candidate.scores, candidate.agreements
        table.add_row(
            candidate.name,
            f"{candidate.bytes / 1e6:.1f}",
            f"{1000 * candidate.latency.total:.0f}",
            *(_number(score.value) for score in (scores["m_tIoU"], scores["m_vIoU"], agreements["same_text"])),
        )
    console = Console(file=sys.stdout, soft_wrap=True, highlight=False)
    console.print(table)
    clips, problems = recording.captures.clips, recording.problems
    left = f", {len(problems)} could not be used ({problems[0]})" if problems else ""
    console.print(f"calibrated on {len(clips)} clips{left}", markup=False)
    if parts.clips:
        console.print(parts.clips.words(), markup=False)
    written = f"{output}, " if kept else ""
    console.print(f"{written}{output}.verdict.html", markup=False)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
