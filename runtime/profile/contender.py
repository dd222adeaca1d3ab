"""One bundle on one engine: opened, timed as a whole and graph by graph, asked what it computes and what it takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from devil.contract import GRAPHS
from devil.engine_profile import BATCHES, named_sizes
from devil.gpu import memory_in_use
from devil.runtime.engines.base import AsyncRunner, KVCache
from devil.runtime.engines.choice import EngineName
from devil.runtime.limits import NO_LIMITS, Limits
from devil.runtime.pipeline import Grounder
from devil.runtime.profile.memory import peak_memory, resident_memory
from devil.runtime.profile.workload import Workload, record


@dataclass(frozen=True)
class Setup:
    """What a contender is.

    Attributes:
        bundle: its folder.
        engine: by the name that `--engine` takes.
        threads: CPU threads; 0 for all cores.
        limits: what a video may take.
        check_memory: refuse what is estimated not to fit.
        trust_engines: run TensorRT engines that were not judged on this machine.
    """

    bundle: Path
    engine: EngineName = "auto"
    threads: int = 0
    limits: Limits = NO_LIMITS
    check_memory: bool = True
    trust_engines: bool = False


def open_grounder(setup: Setup) -> Grounder:
    return Grounder.open(
        setup.bundle,
        threads=setup.threads,
        limits=setup.limits,
        check_memory=setup.check_memory,
        engine=setup.engine,
        trust_engines=setup.trust_engines,
    )


class Contender:
    """A loaded bundle.

    Args:
        open_: loads it.

    Raises:
        DevilError: the bundle or the engine cannot be used here.
    """

    def __init__(self, setup: Setup, open_: Callable[[Setup], Grounder] = open_grounder):
        self.setup = setup
        self._empty = resident_memory()
        start = time.perf_counter()
        self.grounder = open_(setup)
        self._opened = time.perf_counter() - start
        self._loaded = resident_memory()
        self._cache: KVCache | None = None
        self._workload: Workload | None = None

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values."""
        bundle = self.grounder.bundle
        return {
            "bundle": str(self.setup.bundle),
            "model": bundle.manifest.model,
            "precision": bundle.precision,
            "engine": self.grounder.engine.name,
            "threads": self.setup.threads,
            "open_seconds": self._opened,
            "weight_bytes": sum(map(bundle.manifest.graph_bytes, GRAPHS)),
        }

    def memory(self) -> dict[str, int | None]:
        """Bytes: what loading added to this process, the most it ever held, and what is taken of the GPU it computes
        on, by whomever. None where the system does not tell, or there is no GPU."""
        loaded = self._loaded - self._empty if self._loaded is not None and self._empty is not None else None
        return {"loaded": loaded, "peak": peak_memory(), "gpu": memory_in_use()}

    def stages(self, video: str, sentence: str) -> dict[str, float]:
        """Seconds of every stage of one sentence about a video that nobody looked at before, and of all (`total`)."""
        start = time.perf_counter()
        answer = self.grounder.encode(video, sentences=[sentence]).ground(sentence)
        return {**answer.timings, "total": time.perf_counter() - start}

    def record(self, video: str, sentence: str) -> Workload:
        """What the graphs are fed for that sentence."""
        return record(self.grounder, video, sentence)

    def most_tokens(self) -> int | None:
        """The most tokens of one run of the language graph; None: any number."""
        runner = self.grounder.language
        return runner.most("S", {}) if isinstance(runner, AsyncRunner) else None

    def most_frames(self, workload: Workload) -> dict[str, int | None]:
        """The most frames of one run of each graph, in the workload's other sizes; None: any number."""
        found = {}
        for case in workload.cases:
            runner = getattr(self.grounder, case.graph)
            if isinstance(runner, AsyncRunner) and case.unit == "frames":
                sizes = named_sizes(runner.spec, case.shapes)
                (dimension,) = sizes.keys() & set(BATCHES)
                found[case.name] = runner.most(dimension, {name: sizes[name] for name in sizes if name != dimension})
        return found

    def take(self, workload: Workload) -> None:
        """Gets the runs that are to be measured, and fills the cache that they need."""
        self._workload = workload
        self._cache = self.grounder.language.cache(1, workload.capacity)
        for feeds in workload.prefix:
            self._cache.run(feeds)

    def measure(self, case: str, times: int, budget: float = float("inf")) -> list[float]:
        """Seconds of each of at most `times` runs of a case; none begins after `budget` seconds, but the first does."""
        run, seconds = self._run(case), []
        while len(seconds) < times and (not seconds or sum(seconds) < budget):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        return seconds

    def outputs(self, case: str) -> dict[str, np.ndarray]:
        """What the graph gives, without the cache; floats as float32."""
        found = self._run(case)()
        return {name: np.array(array, np.float32 if array.dtype.kind == "f" else None) for name, array in found.items()}

    def layers(self, case: str, times: int) -> list[dict[str, Any]] | None:
        """Seconds of every layer of a case, the slowest first; None where the engine does not tell."""
        from devil.runtime.profile.layers import layers_of

        return layers_of(self.grounder, self._workload, case, times, self._cache, self.setup.threads)

    def _run(self, name: str) -> Callable[[], dict[str, np.ndarray]]:
        case = self._workload.case(name)
        runner = self._cache if case.graph == "language" else getattr(self.grounder, case.graph)
        return lambda: runner.run(case.feeds)
