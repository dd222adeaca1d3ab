"""What is measured: the runs of each graph that one sentence about one video takes, recorded and then replayed.

Recorded inputs have the sizes and the values that the graphs really meet: near-ties among proposals, masks, and a KV
cache that holds a video.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from devil.errors import UsageError
from devil.runtime.engines.base import Arrays, AsyncRunner, Feeds, GraphRunner, KVCache, Pending, stacked
from devil.runtime.pipeline import Grounder

CaseName = Literal["vision", "prefill", "decode", "backbone", "grounder"]
CASES: tuple[CaseName, ...] = ("vision", "prefill", "decode", "backbone", "grounder")

# Of these graphs one item along the first axis of this input is a frame.
_FRAMES = {"vision": "patches", "backbone": "frames", "grounder": "features"}


@dataclass(frozen=True)
class Case:
    """One run of a graph.

    Attributes:
        name: of the case; the language graph has two.
        graph: one of `devil.contract.GRAPHS`.
        feeds: its inputs, without a cache.
        items: how many frames or tokens it takes.
        unit: "frames" or "tokens".
    """

    name: CaseName
    graph: str
    feeds: Arrays
    items: int
    unit: str

    @property
    def shapes(self) -> dict[str, list[int]]:
        return {name: list(array.shape) for name, array in self.feeds.items()}


@dataclass(frozen=True)
class Workload:
    """All cases, and what the language graph's cache must hold for its two.

    Attributes:
        cases: in the order of `CASES`.
        prefix: feeds of the runs that fill one row of the cache.
        capacity: slots of the cache.
    """

    cases: tuple[Case, ...]
    prefix: tuple[Arrays, ...]
    capacity: int

    def case(self, name: str) -> Case:
        return next(case for case in self.cases if case.name == name)

    def cut(self, most: Mapping[str, int | None]) -> Workload:
        """With at most so many frames per case; None leaves them."""

        def shortened(case: Case) -> Case:
            count, axis = most.get(case.name), _FRAMES.get(case.name)
            if axis is None or count is None or count >= case.items:
                return case
            return replace(case, feeds={**case.feeds, axis: case.feeds[axis][:count]}, items=count)

        return replace(self, cases=tuple(map(shortened, self.cases)))


def record(grounder: Grounder, video: str, sentence: str) -> Workload:
    """Answers a sentence and keeps what the graphs were fed.

    Raises:
        UsageError: the answer has no [BOX], so that the detector was not asked.
        DevilError: the video or the sentence cannot be used.
    """
    recorder = _Recorder()
    recording = copy.copy(grounder)
    for name in ("vision", "language", "backbone", "grounder"):
        runner = getattr(grounder, name)
        kind = _AsyncRecording if isinstance(runner, AsyncRunner) else _Recording
        setattr(recording, name, kind(runner, recorder))
    encoded = recording.encode(video, sentences=[sentence])
    read = len(recorder.language)
    encoded.ground(sentence)
    return recorder.workload(read + 1)


@dataclass
class _Recorder:
    """Runs in their order; of graphs without a cache the first, which has the most frames."""

    first: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    language: list[dict[str, np.ndarray]] = field(default_factory=list)

    def add(self, graph: str, feeds: Feeds) -> None:
        if graph not in self.first:
            self.first[graph] = {name: np.array(stacked(feed)) for name, feed in feeds.items()}

    def workload(self, read: int) -> Workload:
        """Of the language graph's runs the first `read` read the video and the sentence; decoding follows."""
        if "grounder" not in self.first:
            raise UsageError("the answer names no object, so the detector was not asked", "give another --sentence")
        cases = {
            graph: Case(graph, graph, self.first[graph], len(self.first[graph][axis]), "frames")
            for graph, axis in _FRAMES.items()
        }
        prefix = self.language[:read]
        sizes = [feeds["token_ids"].shape[1] for feeds in prefix]
        longest = max(range(len(prefix)), key=lambda index: (sizes[index], index))
        cases["prefill"] = Case("prefill", "language", prefix[longest], sizes[longest], "tokens")
        cases["decode"] = Case("decode", "language", _next_token(prefix[-1]), 1, "tokens")
        slots = cases["decode"].feeds["mask"].shape[-1]
        return Workload(tuple(cases[name] for name in CASES), tuple(prefix), slots)


def _next_token(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Feeds of the decoding step behind a run: one more token of the same row."""
    seen = feeds["mask"][:, :, -1:]  # what its last token looks at
    mask = np.concatenate([seen, np.ones_like(seen[..., :1])], -1)
    table = feeds["visual_table"]
    return {
        "token_ids": np.zeros((1, 1), np.int64),
        "visual_table": np.zeros((1, table.shape[1]), table.dtype),
        "positions": feeds["positions"][:, -1:] + 1,
        "write_index": feeds["write_index"] + feeds["token_ids"].shape[1],
        "mask": mask,
        "output_index": np.zeros((1, 1), np.int64),
    }


class _Recording:
    """A runner whose feeds are kept."""

    def __init__(self, inner: GraphRunner, recorder: _Recorder):
        self.spec, self.precision = inner.spec, inner.precision
        self._inner, self._recorder = inner, recorder

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        self._recorder.add(self.spec.name, feeds)
        return self._inner.run(feeds)

    def cache(self, rows: int, capacity: int) -> KVCache:
        return _RecordingCache(self._inner.cache(rows, capacity), self._recorder)


class _AsyncRecording(_Recording):
    """The same of a runner on a device, whose limits the pipeline must know."""

    _inner: AsyncRunner

    def submit(self, feeds: Feeds) -> Pending:
        self._recorder.add(self.spec.name, feeds)
        return self._inner.submit(feeds)

    def most(self, dimension: str, sizes: Mapping[str, int]) -> int | None:
        return self._inner.most(dimension, sizes)


class _RecordingCache:
    def __init__(self, inner: KVCache, recorder: _Recorder):
        self.rows = inner.rows
        self._inner, self._recorder = inner, recorder

    @property
    def capacity(self) -> int:
        return self._inner.capacity

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        self._recorder.language.append({name: np.array(feed) for name, feed in feeds.items()})
        return self._inner.run(feeds)

    def grow(self, capacity: int) -> None:
        self._inner.grow(capacity)
