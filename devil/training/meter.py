"""The log of a run: means of losses as JSON lines, and to the trackers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from devil.files import append_text, write_text


class Meter:
    """Means of losses since the last line, over all processes, written as JSON lines and to the trackers.

    Args:
        path: of the log.
        done: steps of the run that are kept; lines of later ones, which a kill left behind, are cut off.
    """

    def __init__(self, path: Path, accelerator: Accelerator, done: int = 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._accelerator = path, accelerator
        self._values: dict[str, list[Tensor]] = {}
        self._since = time.perf_counter()
        if accelerator.is_main_process and path.exists():
            write_text(path, _until(done, path.read_text(encoding="utf-8", errors="replace")))

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self._values.setdefault(name, []).append(value.detach().float())

    def write(self, step: int) -> None:
        """Writes a line. A loss that not every batch has is the mean of those that have it.

        All processes call this together, and reduce the same numbers: which losses there were is gathered first.

        Raises:
            OutputError: the log cannot be written.
        """
        now = time.perf_counter()
        names = list(dict.fromkeys(gather_object(list(self._values))))
        of = [self._values.get(name, []) for name in names]
        nothing = torch.zeros((), device=self._accelerator.device)
        sums = torch.stack([torch.stack(values).sum().to(nothing) if values else nothing for values in of])
        counts = torch.tensor([float(len(values)) for values in of], device=nothing.device)
        total, count = self._accelerator.reduce(torch.stack([sums, counts]), "sum")
        means = dict(zip(names, (round(mean, 6) for mean in (total / count).tolist()), strict=True))
        self._accelerator.log(means, step=step)
        if self._accelerator.is_main_process:
            line = {"step": step, "seconds": round(now - self._since, 1), **means}
            append_text(self._path, json.dumps(line) + "\n")
        self._values, self._since = {}, now


def _until(done: int, log: str) -> str:
    """The whole lines of a log up to a step; a kill may have left half a line at its end."""
    lines = log.splitlines(keepends=True)
    return "".join(line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= done)
