"""The measurement: contenders side by side, and what comes out as one document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from devil.bundle import read_manifest
from devil.contract import contract
from devil.errors import UsageError
from devil.progress import Progress, no_progress
from devil.runtime.profile.accuracy import compare
from devil.runtime.profile.contender import Setup
from devil.runtime.profile.latency import Latency
from devil.runtime.profile.layers import by_kind
from devil.runtime.profile.turns import Amount, Caller, common_workload, runs_in_turns, whole_runs
from devil.runtime.profile.worker import Worker
from devil.runtime.profile.workload import Case, Workload


def measure(
    setups: Mapping[str, Setup], video: str, sentence: str, amount: Amount, progress: Progress = no_progress
) -> dict[str, Any]:
    """Measures contenders by name, each in a process of its own.

    Returns:
        `workload`, `contenders` and `accuracy` of the document (docs/profiling.md).

    Raises:
        UsageError: bundles of different models, which have no inputs in common.
        DevilError: a contender cannot be used here, or died.
    """
    _check_same_model(setups)
    with ExitStack() as stack:
        workers = []
        for index, (name, setup) in enumerate(setups.items()):
            progress("opening", index, len(setups))
            workers.append(stack.enter_context(Worker(name, setup)))
        progress("opening", len(setups), len(setups))
        return measure_all(workers, setups, video, sentence, amount, progress)


def measure_all(
    callers: Sequence[Caller],
    setups: Mapping[str, Setup],
    video: str,
    sentence: str,
    amount: Amount,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """As `measure`, of contenders that are open."""
    stages = whole_runs(callers, video, sentence, amount, progress)
    workload = common_workload(callers, video, sentence)
    graphs = {case.name: runs_in_turns(callers, case, amount, progress) for case in workload.cases}
    memory = {caller.name: caller.call("memory") for caller in callers}  # before layers load a second session
    contenders = []
    for caller in callers:
        values = {"name": caller.name, **caller.call("describe"), "memory": memory[caller.name]}
        values["stages"] = {stage: Latency.of(times).values() for stage, times in stages[caller.name].items()}
        values["graphs"] = {
            case.name: _graph_values(case, Latency.of(graphs[case.name][caller.name])) for case in workload.cases
        }
        contenders.append(values)
    if amount.layers:
        _add_layers(callers, contenders, workload, amount.layers, progress)
    return {
        "workload": _workload_values(workload, video, sentence),
        "contenders": contenders,
        "accuracy": _accuracy(callers, setups, workload, progress) if amount.accuracy else None,
    }


def _graph_values(case: Case, latency: Latency) -> dict[str, Any]:
    return {**latency.values(), "items": case.items, "unit": case.unit, "per_second": case.items / latency.p50}


def _workload_values(workload: Workload, video: str, sentence: str) -> dict[str, Any]:
    shapes = {case.name: case.shapes for case in workload.cases}
    return {"video": video, "sentence": sentence, "cache_slots": workload.capacity, "shapes": shapes}


def _add_layers(
    callers: Sequence[Caller],
    contenders: Sequence[dict[str, Any]],
    workload: Workload,
    times: int,
    progress: Progress,
) -> None:
    total = len(callers) * len(workload.cases)
    for index, (caller, values) in enumerate(zip(callers, contenders, strict=True)):
        values["layers"] = {}
        for done, case in enumerate(workload.cases):
            progress("layers", index * len(workload.cases) + done, total)
            layers = caller.call("layers", case.name, times)
            if layers is not None:
                values["layers"][case.name] = {"kinds": by_kind(layers), "layers": layers}
    progress("layers", total, total)


def _accuracy(
    callers: Sequence[Caller], setups: Mapping[str, Setup], workload: Workload, progress: Progress
) -> list[dict[str, Any]]:
    """Per contender but the first the differences of all tensors, the worst first."""
    reference, others = callers[0], callers[1:]
    specs = contract(read_manifest(setups[reference.name].bundle).config)
    found: dict[str, list[dict[str, Any]]] = {caller.name: [] for caller in others}
    for index, case in enumerate(workload.cases):
        progress("comparing", index, len(workload.cases))
        differences = compare(
            case,
            specs[case.graph],
            lambda case=case: reference.call("outputs", case.name),
            {caller.name: lambda caller=caller, case=case: caller.call("outputs", case.name) for caller in others},
        )
        for name, tensors in differences.items():
            found[name] += [asdict(tensor) for tensor in tensors]
    return [
        {"name": name, "against": reference.name, "tensors": sorted(tensors, key=lambda tensor: -tensor["relative"])}
        for name, tensors in found.items()
    ]


def _check_same_model(setups: Mapping[str, Setup]) -> None:
    configs = {setup.bundle: read_manifest(setup.bundle).config for setup in setups.values()}
    first, *others = configs
    different = [bundle for bundle in others if configs[bundle] != configs[first]]
    if different:
        raise UsageError(f"{different[0]} is of another model than {first}", "compare bundles of one checkpoint")
