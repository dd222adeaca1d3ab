"""How long work shows how far it is: a callback, and the bars on stderr that commands pass as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Progress = Callable[[str, int, int], None]  # stage, done, total


def no_progress(_stage: str, _done: int, _total: int) -> None:
    """Says nothing."""


class ProgressBars:
    """A bar per stage on stderr where it is a terminal; nothing where it is not. A context manager and a `Progress`."""

    def __enter__(self) -> ProgressBars:
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description:24}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
            progress.TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self._bars = progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bars.start()
        self._tasks: dict[str, Any] = {}
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        elif done == 0:  # once more: what is left is estimated anew
            self._bars.reset(self._tasks[stage], total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def __exit__(self, *_error: object) -> None:
        self._bars.stop()
