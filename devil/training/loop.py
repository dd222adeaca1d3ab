"""The training loop: what a step is, is a pure function of its number, so a killed run resumes to the same losses."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from devil.errors import CheckpointError
from devil.files import atomic_file

STATE = "state.pt"
LOG = "log.jsonl"
_AS_BEGUN = "resume with the options it began with"


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, and where to.

    Attributes:
        steps: optimizer steps.
        warmup: share of the steps in which the learning rate rises; it then falls along a cosine.
        floor: share of the learning rate that is left at the end.
        clip: gradients are scaled down to this norm.
        accumulate: batches per step.
        seed: everything random follows from it.
        save_every, log_every: in steps.
    """

    steps: int
    warmup: float = 0.03
    floor: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    seed: int = 0
    save_every: int = 200
    log_every: int = 20


def learning_rate(step: int, config: LoopConfig) -> float:
    """The factor of step `step` (from 0): linear warm-up, then half a cosine."""
    warm = max(1, round(config.warmup * config.steps))
    if step < warm:
        return (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.floor + (1 - config.floor) * (1 + math.cos(math.pi * progress)) / 2


def permuted(number: int, count: int, seed: int) -> int:
    """Which of `count` samples is drawn as the `number`-th: every epoch goes through all of them in a new order."""
    epoch, place = divmod(number, count)
    order = np.random.RandomState((seed * 1_000_003 + epoch) % 2**32).permutation(count)
    return int(order[place])


def train(
    objective: nn.Module,
    groups: Sequence[dict[str, Any]],
    draw: Callable[[int], Any],
    config: LoopConfig,
    folder: Path,
    accelerator: Accelerator | None = None,
) -> None:
    """Trains until `config.steps`; continues where a run in `folder` was killed.

    Args:
        objective: called with a batch, returns losses by name; `loss` is minimised, the others are only logged.
        groups: AdamW parameter groups; what is in none of them is frozen.
        draw: the batch of a number; numbers run through steps, accumulation and processes.
        folder: gets `log.jsonl` and the state to resume from.
    """
    accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
    chosen = {id(parameter) for group in groups for parameter in group["params"]}
    for parameter in objective.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98))
    peaks = [group["lr"] for group in optimizer.param_groups]
    done = _resume(objective, optimizer, folder)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    meter = Meter(folder / LOG, accelerator)
    for step in range(done, config.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * learning_rate(step, config)
        for micro in range(config.accumulate):
            number = (step * config.accumulate + micro) * accelerator.num_processes + accelerator.process_index
            torch.manual_seed(config.seed * 1_000_003 + number)
            with accelerator.autocast():
                losses = wrapped(draw(number))
            accelerator.backward(losses["loss"] / config.accumulate)
            meter.add(losses)
        accelerator.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
            meter.write(step + 1)
        if ((step + 1) % config.save_every == 0 or step + 1 == config.steps) and accelerator.is_main_process:
            _save(objective, optimizer, step + 1, folder)


class Meter:
    """Means of losses since the last line, over all processes, written as JSON lines and to the trackers."""

    def __init__(self, path: Path, accelerator: Accelerator):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._accelerator = path, accelerator
        self._values: dict[str, list[Tensor]] = {}
        self._since = time.perf_counter()

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self._values.setdefault(name, []).append(value.detach().float())

    def write(self, step: int) -> None:
        now = time.perf_counter()
        means = {
            name: round(float(self._accelerator.reduce(torch.stack(values).mean(), "mean")), 6)
            for name, values in self._values.items()
        }
        self._accelerator.log(means, step=step)
        if self._accelerator.is_main_process:
            line = {"step": step, "seconds": round(now - self._since, 1), **means}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self._values, self._since = {}, now


def _save(objective: nn.Module, optimizer: torch.optim.Optimizer, step: int, folder: Path) -> None:
    """Keeps what changes: trained weights and the optimizer. Everything else comes from where the run began."""
    trained = {name: value.detach() for name, value in objective.named_parameters() if value.requires_grad}
    with atomic_file(folder / STATE) as temporary:
        torch.save({"step": step, "trained": trained, "optimizer": optimizer.state_dict()}, temporary)


def _resume(objective: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Loads the state of a run, where there is one, and returns how many steps it had done."""
    if not (folder / STATE).exists():
        return 0
    state = load_state(objective, folder)
    try:
        optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise CheckpointError(f"the run in {folder} trained other weights ({error})", _AS_BEGUN) from error
    return state["step"]


def load_state(objective: nn.Module, folder: Path) -> dict[str, Any]:
    """Loads the weights that a run in `folder` has trained, and returns its whole state."""
    state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
    load_trained(objective, state["trained"])
    return state


def load_trained(objective: nn.Module, trained: dict[str, Tensor]) -> None:
    """Puts the weights of a state into an objective that has the same parameters.

    Raises:
        CheckpointError: the state is of another model.
    """
    parameters = dict(objective.named_parameters())
    for name, value in trained.items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise CheckpointError(f"the run to resume has weights {name} that do not fit", _AS_BEGUN)
        with torch.no_grad():
            parameters[name].copy_(value)
