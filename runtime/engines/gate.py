"""The numeric gate: an engine is compared with ONNX Runtime on the machine that runs it, before anybody relies on it.

Builders miscompile. TensorRT has turned the GridSample form of deformable attention into something else on some GPUs
and versions, without a word. The verdict goes into the engine's sidecar, per machine, and is not sought twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from devil.bundle import Bundle
from devil.contract import Precision, contract
from devil.engine_sidecar import StoredEngine
from devil.engine_store import EngineStore
from devil.errors import EngineError, MissingPackageError, OutputError
from devil.fidelity import Measures, compare_detections, compare_tensors, over_budget
from devil.runtime.available_memory import available_memory
from devil.runtime.engines.base import GraphRunner
from devil.runtime.engines.gate_cases import Case, cases
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.engines.tensorrt.runner import TensorRtRunner

SCHEMA = 1
_DETECTIONS = ("logits", "boxes", "embeddings")  # of the grounder; compared together, slots matched
_BYTES_PER_WEIGHT_BYTE = 2.2  # of the reference: the weights as they lie, and one layer after another in float32
_UNCHECKED = "--trust-engines runs it unchecked"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """How far one output was off in one case.

    Attributes:
        measures: see `devil.fidelity`.
        broken: the measures out of their budget, in words.
    """

    tensor: str
    case: str
    measures: Measures
    broken: tuple[str, ...]

    def values(self) -> dict[str, Any]:
        return {"tensor": self.tensor, "case": self.case, "measures": self.measures, "broken": list(self.broken)}


@dataclass(frozen=True)
class NumericGate:
    """Judges engines of a bundle (`TensorRtEngine` calls it).

    Attributes:
        trust: let engines through that nobody could judge, or has judged yet.
    """

    trust: bool = False

    def __call__(self, store: EngineStore, stored: StoredEngine, runner: TensorRtRunner, path: Path, here: str) -> None:
        """
        Args:
            path: the graph's ONNX file.
            here: the machine, as verdicts are kept.

        Raises:
            EngineError: the engine is out of its budget, or cannot be judged.
        """
        report = verdict(stored, here)
        if report is None:
            if self.trust:
                return
            try:
                report = judge(store, stored.key.graph, runner, path)
            except EngineError as error:
                raise EngineError(f"{stored.path.name}: {error.message}", error.mend) from error
            try:
                store.record_gate(stored, here, report)
            except OutputError as error:  # a bundle on a disk that cannot be written is judged every time
                _log.warning("the verdict on an engine is not kept: %s", error)
        refuse_failed(stored, report)


def verdict(stored: StoredEngine, here: str) -> Mapping[str, Any] | None:
    """The report on an engine on a machine, where it was judged there."""
    report = stored.gates.get(here)
    return report if report is not None and report.get("schema") == SCHEMA else None


def refuse_failed(stored: StoredEngine, report: Mapping[str, Any] | None) -> None:
    """
    Raises:
        EngineError: the report says that the engine is out of its budget.
    """
    if report is None or report["passed"]:
        return
    worst = report["findings"][0]
    raise EngineError(
        f"{stored.path.name}: it computes something else than the graph: {worst['tensor']} of {worst['case']} has "
        f"{', '.join(worst['broken'])}",
        "build it again with another TensorRT or with the plugin (docs/tensorrt.md), or take another --engine",
    )


def judge(store: EngineStore, graph: str, runner: TensorRtRunner, path: Path) -> dict[str, Any]:
    """The report on an engine: whether it passed, and what was found, the worst first.

    Raises:
        EngineError: there is nothing to compare it with here.
    """
    began, budget = time.perf_counter(), budget_of(store.bundle, graph)
    reference = _Reference(store, graph, runner.precision)
    found = [
        finding
        for case in cases(store.bundle.config, graph, runner.profiles)
        for finding in _compare(reference, runner, case, budget)
    ]
    found.sort(key=lambda finding: (-len(finding.broken), -finding.measures.get("relative", 0.0)))
    return {
        "schema": SCHEMA,
        "passed": not any(finding.broken for finding in found),
        "precision": runner.precision,
        "reference": f"{path.name} on onnxruntime {metadata.version('onnxruntime')}, CPU",
        "seconds": round(time.perf_counter() - began, 3),
        "findings": [finding.values() for finding in found],
    }


def budget_of(bundle: Bundle, graph: str) -> Precision:
    """The precision whose errors an engine of a graph may show.

    Where activations are rounded to 8 bits, sums that differ in their last bits become different codes: two right
    engines of one fp32 graph are up to 0.005 of the largest value apart, which the budget of fp16 covers.
    """
    precision = bundle.manifest.graph_precision(graph)
    rounded = bundle.manifest.quantisation.get(graph, {}).get("forms")
    return "fp16" if rounded and precision == "fp32" else precision


class _Reference:
    """The bundle's graphs on ONNX Runtime's CPU kernels."""

    def __init__(self, store: EngineStore, graph: str, precision: Precision):
        self._bundle, self._specs = store.bundle, contract(store.bundle.config)
        if precision == "bf16":
            raise EngineError("bf16 engines cannot be judged: ONNX Runtime's CPU kernels have no bf16", _UNCHECKED)
        needed, free = self._bundle.manifest.graph_bytes(graph) * _BYTES_PER_WEIGHT_BYTE, available_memory()
        if free is not None and needed > free:
            told = f"judging it takes {needed / 1e9:.1f} GB of the machine's memory, {free / 1e9:.1f} are free"
            raise EngineError(told, f"free some; or {_UNCHECKED}")
        self.graph = self._load(graph)
        self.backbone = self._load("backbone") if graph == "grounder" else None

    def _load(self, graph: str) -> GraphRunner:
        precision = self._bundle.manifest.graph_precision(graph)
        try:
            return OnnxRuntimeEngine(lean=True).load(self._bundle.path(graph), self._specs[graph], precision)
        except MissingPackageError as error:
            raise EngineError(f"judging it needs {error.message}", f"{error.mend}; or {_UNCHECKED}") from error


def _compare(reference: _Reference, runner: TensorRtRunner, case: Case, budget: Precision) -> Iterator[Finding]:
    """What an engine and the reference make of a case."""
    runs = case.runs
    ours, theirs = runner, reference.graph
    if runner.spec.name == "language":
        capacity = sum(run["token_ids"].shape[1] for run in runs)
        ours, theirs = runner.cache(1, capacity), reference.graph.cache(1, capacity)
    if reference.backbone is not None:
        runs = [_with_features(reference.backbone, run) for run in runs]
    for index, feeds in enumerate(runs):
        name = case.name if len(runs) == 1 else f"{case.name}, run {index + 1}"
        yield from _findings(ours.run(feeds), theirs.run(feeds), name, budget)


def _with_features(backbone: GraphRunner, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A grounder's case with what the backbone makes of its frames: random features would have only near ties."""
    rest = {name: array for name, array in feeds.items() if name != "frames"}
    return rest | {"features": backbone.run({"frames": feeds["frames"]})["features"]}


def _findings(
    found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], case: str, budget: Precision
) -> Iterator[Finding]:
    if set(expected) == set(_DETECTIONS):
        compared = {"detections": compare_detections(found, expected)}
    else:
        compared = {name: compare_tensors(found[name], expected[name]) for name in expected}
    for tensor, measures in compared.items():
        yield Finding(tensor, case, measures, tuple(over_budget(measures, budget)))
