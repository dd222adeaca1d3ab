"""TensorRT's nested phases as one number that grows from 0 to 100."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

Told = Callable[[str, int], None]  # phase, per cent


class Phases:
    """How far a build is: steps of the outermost phase, and inside of it the share of the phase that runs.

    TensorRT does not tell beforehand which phases will come, so a step of an outer phase counts by what its inner
    phases have done; the number never goes back.
    """

    def __init__(self, told: Told):
        self._told, self._percent = told, -1
        self._steps: dict[str, list[int]] = {}  # phase → [done, all], outermost first

    def start(self, phase: str, steps: int) -> None:
        self._steps[phase] = [0, max(1, steps)]
        self._tell(phase)

    def step(self, phase: str, step: int) -> None:
        if phase in self._steps:
            self._steps[phase][0] = step + 1
            self._tell(phase)

    def finish(self, phase: str) -> None:
        self._steps.pop(phase, None)

    def _tell(self, phase: str) -> None:
        share, rest = 0.0, 1.0
        for done, steps in self._steps.values():
            share += rest * min(done, steps) / steps
            rest /= steps
        percent = min(100, int(100 * share))
        if percent > self._percent:
            self._percent = percent
            self._told(phase, percent)


def monitor(trt: ModuleType, told: Told) -> Any:
    """An IProgressMonitor that calls `told` whenever another per cent is done."""
    phases = Phases(told)

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
            phases.start(phase, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            phases.step(phase, step)
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            phases.finish(phase)

    return Monitor()
