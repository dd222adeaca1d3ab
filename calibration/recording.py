"""An engine that remembers what the graphs of another one are fed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from devil.calibration.captures import Run
from devil.contract import GraphSpec, Precision
from devil.errors import CalibrationError
from devil.runtime.engines.base import Arrays, Engine, GraphRunner, KVCache

# Of these inputs one row is one frame, and a few frames of a clip say what all of them would.
_FRAMES = {"vision": "patches", "backbone": "frames", "grounder": "features"}


class NoNumbersError(CalibrationError):
    """An output is NaN.

    Attributes:
        graph: whose.
        feeds: its inputs then.
    """

    def __init__(self, graph: str, feeds: Arrays):
        super().__init__(f"graph {graph} gives values that are no numbers", "calibrate a bundle of fp32")
        self.graph, self.feeds = graph, feeds


@dataclass
class Recorder:
    """What the graphs were fed since the last clip began.

    Attributes:
        every: of a clip's frames, each so-many-th is kept, the first one too.
    """

    every: int = 1
    runs: list[Run] = field(default_factory=list)
    _clip: int = 0
    _seen: dict[str, int] = field(default_factory=dict)
    _caches: int = 0

    def begin(self, clip: int) -> None:
        """Forgets everything; what follows belongs to another clip."""
        self._clip, self._seen, self._caches, self.runs = clip, {}, 0, []

    def next_cache(self) -> int:
        self._caches += 1
        return self._caches - 1

    def add(self, graph: str, feeds: Arrays, cache: int | None = None, capacity: int | None = None) -> None:
        """Keeps a copy of the feeds, thinned along the frames."""
        kept = dict(feeds)
        if graph in _FRAMES:
            frames = feeds[_FRAMES[graph]]
            seen = self._seen.get(graph, 0)
            self._seen[graph] = seen + len(frames)
            kept[_FRAMES[graph]] = frames[-seen % self.every :: self.every]
            if not len(kept[_FRAMES[graph]]):
                return
        self.runs.append(Run(graph, self._clip, {name: np.array(kept[name]) for name in kept}, cache, capacity))


@dataclass(frozen=True)
class RecordingEngine:
    """Loads graphs into `inner`; what they are fed goes to `recorder` too."""

    inner: Engine
    recorder: Recorder

    @property
    def name(self) -> str:
        return self.inner.name

    def load(self, path: Path, spec: GraphSpec, precision: Precision) -> _RecordingRunner:
        return _RecordingRunner(self.inner.load(path, spec, precision), self.recorder)


class _RecordingRunner:
    def __init__(self, inner: GraphRunner, recorder: Recorder):
        self.spec, self.precision = inner.spec, inner.precision
        self._inner, self._recorder = inner, recorder

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        self._recorder.add(self.spec.name, feeds)
        found = self._inner.run(feeds)
        if any(np.isnan(values).any() for values in found.values()):
            raise NoNumbersError(self.spec.name, {name: np.array(feeds[name]) for name in feeds})
        return found

    def cache(self, rows: int, capacity: int) -> _RecordingCache:
        return _RecordingCache(self._inner.cache(rows, capacity), self.spec.name, self._recorder)


class _RecordingCache:
    def __init__(self, inner: KVCache, graph: str, recorder: Recorder):
        self.rows = inner.rows
        self._inner, self._graph, self._recorder = inner, graph, recorder
        self._number = recorder.next_cache()

    @property
    def capacity(self) -> int:
        return self._inner.capacity

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        self._recorder.add(self._graph, feeds, self._number, self.capacity)
        return self._inner.run(feeds)

    def grow(self, capacity: int) -> None:
        self._inner.grow(capacity)
