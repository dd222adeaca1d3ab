"""Contenders take turns, so that a slow moment of the machine hits all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from devil.progress import Progress
from devil.runtime.profile.workload import Case, Workload

_TURN = 5  # runs of one contender before the next one's turn


class Caller(Protocol):
    """A contender, here or in another process."""

    name: str

    def call(self, method: str, *arguments: Any) -> Any: ...


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    Attributes:
        runs: of the whole pipeline, behind one that warms up.
        iterations: most runs of each graph, behind `warm_up` that do not count.
        seconds: most time for one graph of one contender; at least one run is always made.
        layers: runs of which the layers' times are taken; 0 leaves the layers out.
        accuracy: compare what the contenders compute with the first one's.
    """

    runs: int = 5
    iterations: int = 50
    warm_up: int = 5
    seconds: float = 20.0
    layers: int = 0
    accuracy: bool = False


def common_workload(callers: Sequence[Caller], video: str, sentence: str) -> Workload:
    """Runs that every contender takes; those on TensorRT were built for so many tokens and frames at once."""
    tokens = [caller.call("most_tokens") for caller in callers]
    fewest = min(range(len(callers)), key=lambda index: tokens[index] or float("inf"))
    workload: Workload = callers[fewest].call("record", video, sentence)
    for caller in callers:
        workload = workload.cut(caller.call("most_frames", workload))
    for caller in callers:
        caller.call("take", workload)
    return workload


def whole_runs(
    callers: Sequence[Caller], video: str, sentence: str, amount: Amount, progress: Progress
) -> dict[str, dict[str, list[float]]]:
    """Seconds per contender and stage; the first run of each is not counted."""
    seconds: dict[str, dict[str, list[float]]] = {caller.name: {} for caller in callers}
    for turn in range(amount.runs + 1):
        progress("whole runs", turn, amount.runs + 1)
        for caller in callers:
            told = caller.call("stages", video, sentence)
            for stage, value in told.items() if turn else ():
                seconds[caller.name].setdefault(stage, []).append(value)
    progress("whole runs", amount.runs + 1, amount.runs + 1)
    return seconds


def runs_in_turns(callers: Sequence[Caller], case: Case, amount: Amount, progress: Progress) -> dict[str, list[float]]:
    """Seconds of a case per contender, measured in turns."""
    for caller in callers:
        if amount.warm_up:
            caller.call("measure", case.name, amount.warm_up, amount.seconds / 4)
    seconds: dict[str, list[float]] = {caller.name: [] for caller in callers}
    while True:
        open_ = [caller for caller in callers if _goes_on(seconds[caller.name], amount)]
        progress(case.name, min(map(len, seconds.values())), amount.iterations)
        if not open_:
            return seconds
        for caller in open_:
            done = seconds[caller.name]
            turn = min(_TURN, amount.iterations - len(done))
            done += caller.call("measure", case.name, turn, amount.seconds - sum(done))


def _goes_on(done: Sequence[float], amount: Amount) -> bool:
    return len(done) < amount.iterations and (not done or sum(done) < amount.seconds)
