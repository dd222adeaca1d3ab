"""Does the path lose anything? PyTorch fp32 against its exported bundles, clip by clip, on the held-out split.

python benchmarks/fidelity.py [--model DIR] [--precisions fp32 fp16] [--output DIR] [--quick] [--json]
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from harness import Row, command_line, figure, report

from devil.answer import Span
from devil.assets import reference_checkpoint
from devil.evaluation.cli import EvalOptions, evaluate
from devil.evaluation.datasets import SYNTHETIC
from devil.evaluation.samples import Asked, read_samples
from devil.export.bundle import export
from devil.export.options import ExportOptions
from devil.metrics import Sample, box_iou
from devil.tube import frames_in_span

_LEAST_TEXTS = {"fp32": 1.0, "fp16": 0.99}  # share of identical answers
_LEAST_OVERLAP = {"fp32": 0.995, "fp16": 0.97}  # mean tube IoU with PyTorch's tube
_MOST_CHANGE = {"fp32": 0.0005, "fp16": 0.005}  # of m_vIoU


@dataclass(frozen=True)
class Options:
    """Evaluates a checkpoint in PyTorch and as bundles, and compares their answers."""

    model: Path | None = None
    """Checkpoint folder; the shipped devil-tiny by default."""
    dataset: str = SYNTHETIC
    """As for devil-eval."""
    precisions: tuple[str, ...] = ("fp32", "fp16")
    """Of the bundles."""
    output: Path | None = None
    """Keep bundles and evaluations in this folder, and continue what lies there."""
    quick: bool = False
    """Only 20 clips."""
    json: bool = False
    """End with one JSON document."""


def main(options: Options) -> None:
    with contextlib.ExitStack() as stack:
        folder = options.output or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        common = EvalOptions(dataset=options.dataset, limit=20 if options.quick else None)
        checkpoint = options.model or reference_checkpoint()
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the comparison
            theirs = evaluate(replace(common, model=checkpoint, output=folder / "pytorch"))
            ours = {
                precision: evaluate(
                    replace(common, bundle=bundle(checkpoint, folder, precision), output=folder / f"eval-{precision}")
                )
                for precision in options.precisions
            }
        rows = []
        for precision, values in ours.items():
            pairs = paired(folder / "pytorch", folder / f"eval-{precision}", common.limit)
            rows += [*agreement_rows(precision, pairs), *metric_rows(precision, values["metrics"], theirs["metrics"])]
    report("fidelity", rows, options.json)


def bundle(checkpoint: Path, folder: Path, precision: str) -> Path:
    """The checkpoint's bundle, exported anew unless the folder has one."""
    path = folder / f"bundle-{precision}"
    if not path.exists():
        export(ExportOptions(model=checkpoint, precision=precision, output=path))
    return path


def paired(one: Path, two: Path, limit: int | None) -> list[tuple[Asked, Asked]]:
    """Answers of two evaluations to the same questions, where both answered."""
    first, second = read_samples(one), read_samples(two)
    both = [index for index in first if index in second and (limit is None or index < limit)]
    pairs = [(first[index], second[index]) for index in both]
    return [pair for pair in pairs if all(asked.sample is not None for asked in pair)]


def agreement_rows(precision: str, pairs: Sequence[tuple[Asked, Asked]]) -> list[Row]:
    """How many texts and spans are the same, and how far the tubes overlap."""
    texts = statistics.mean(theirs.text == ours.text for theirs, ours in pairs)
    spans = statistics.mean(theirs.sample.span == ours.sample.span for theirs, ours in pairs)
    overlap = statistics.mean(tube_agreement(theirs.sample, ours.sample) for theirs, ours in pairs)
    texts_goal, overlap_goal = _LEAST_TEXTS.get(precision), _LEAST_OVERLAP.get(precision)
    return [
        at_least(f"{precision}, {len(pairs)} clips, same text", texts, texts_goal),
        at_least(f"{precision}, {len(pairs)} clips, same span", spans, texts_goal),
        at_least(f"{precision}, {len(pairs)} clips, mean tube IoU", overlap, overlap_goal),
    ]


def tube_agreement(theirs: Sample, ours: Sample) -> float:
    """IoU of two answers' tubes over the frames that either has; 1 where neither names an object."""
    if np.isnan(theirs.boxes).all() and np.isnan(ours.boxes).all():
        return 1.0
    one, two = (
        frames_in_span(sample.times, Span(*sample.span) if sample.span else None).tolist() for sample in (theirs, ours)
    )
    shared = sorted(set(one) & set(two))
    return float(box_iou(theirs.boxes[shared], ours.boxes[shared]).sum()) / len(set(one) | set(two))


def metric_rows(precision: str, ours: dict[str, float], theirs: dict[str, float]) -> list[Row]:
    """Every metric beside PyTorch's; the change of m_vIoU has a goal."""
    rows = []
    for name, value in ours.items():
        change = abs(value - theirs[name])
        most = _MOST_CHANGE.get(precision) if name == "m_vIoU" else None
        goal, met = (f"|change| ≤ {most:g}", change <= most) if most is not None else ("", None)
        rows.append(Row(f"{precision}, {name}", "PyTorch fp32", value, theirs[name], "", None, goal, met))
    return rows


def at_least(case: str, value: float, least: float | None) -> Row:
    return figure(case, value, "of 1", *((f"≥ {least:g}", value >= least) if least is not None else ()))


if __name__ == "__main__":
    main(command_line(Options))
