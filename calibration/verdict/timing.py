"""How long each graph of several bundles takes on this machine, run in turns on the same recorded inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from devil.bundle import Bundle, open_bundle
from devil.calibration.captures import Captures, Run
from devil.contract import GRAPHS, contract
from devil.progress import Progress, no_progress
from devil.runtime.engines.base import GraphRunner
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine

ROUNDS = 5


@dataclass(frozen=True)
class Latency:
    """Seconds that a bundle's graphs take.

    Attributes:
        graphs: by graph, median seconds of processor time of one clip's recorded runs.
    """

    graphs: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.graphs.values())


def time_bundles(
    bundles: Mapping[str, Path],
    captures: Captures,
    threads: int = 1,
    known: dict[str, float] | None = None,
    rounds: int = ROUNDS,
    progress: Progress = no_progress,
) -> dict[str, Latency]:
    """Latencies by name. A slow moment of the machine hits all bundles: they take turns run by run.

    Processor time is what counts, so that other programs do not. A graph that two bundles have in common is run
    once and takes the same time in both.

    Args:
        bundles: by name; of one model.
        captures: recorded with one of them; the first clip that has a graph's runs is used.
        threads: of the engine.
        known: seconds by graph and hash, of this recording; what is missing is added, the rest is not run again.
        rounds: after one that does not count.
    """
    known = {} if known is None else known
    opened = {name: open_bundle(path, verify=False) for name, path in bundles.items()}
    seconds: dict[str, dict[str, float]] = {name: {} for name in opened}
    for done, graph in enumerate(GRAPHS):
        progress("timing", done, len(GRAPHS))
        distinct = {_key(bundle, graph): bundle for bundle in opened.values()}
        if not distinct.keys() <= known.keys():
            runners = {key: _load(bundle, graph, threads) for key, bundle in distinct.items()}
            known |= _paired(runners, _runs(captures, graph), rounds)
        for name, bundle in opened.items():
            seconds[name][graph] = known[_key(bundle, graph)]
    progress("timing", len(GRAPHS), len(GRAPHS))
    return {name: Latency(graphs) for name, graphs in seconds.items()}


def _key(bundle: Bundle, graph: str) -> str:
    return f"{graph} {bundle.graph_hash(graph)}"


def _load(bundle: Bundle, graph: str, threads: int) -> GraphRunner:
    spec, precision = contract(bundle.config)[graph], bundle.manifest.graph_precision(graph)
    return OnnxRuntimeEngine(threads=threads).load(bundle.path(graph), spec, precision)


def _runs(captures: Captures, graph: str) -> Sequence[Run]:
    """What the first clip with runs of this graph fed it."""
    for clip in captures.clips:
        runs = list(captures.runs(graph, [clip]))
        if runs:
            return runs
    return []


def _paired(runners: Mapping[str, GraphRunner], runs: Sequence[Run], rounds: int) -> dict[str, float]:
    """Median seconds of all runs together, by runner."""
    taken: dict[str, list[float]] = {key: [] for key in runners}
    for turn in range(rounds + 1):
        sums = dict.fromkeys(runners, 0.0)
        for step in zip(*(_steps(runner, runs) for runner in runners.values()), strict=True):
            for key, spent in zip(runners, step, strict=True):
                sums[key] += spent
        if turn:
            for key, spent in sums.items():
                taken[key].append(spent)
    return {key: statistics.median(values) for key, values in taken.items()}


def _steps(runner: GraphRunner, runs: Sequence[Run]) -> Iterator[float]:
    """Seconds of one run after the other; those that share a cache run on one that was empty at first."""
    for number, together in groupby(runs, key=lambda run: run.cache):
        group = list(together)
        cache = None if number is None else runner.cache(1, max(run.capacity for run in group))
        for run in group:
            began = time.process_time()
            (cache or runner).run(run.feeds)
            yield time.process_time() - began
