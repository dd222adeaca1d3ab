"""The training loop: what a step is, is a pure function of its number, so a killed run resumes to the same losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from devil.progress import Progress, no_progress
from devil.training.interruption import Interruption
from devil.training.meter import Meter
from devil.training.state import resume, save_state

LOG = "log.jsonl"


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
    progress: Progress = no_progress,
) -> None:
    """Trains until `config.steps`; continues where a run in `folder` was killed or interrupted.

    Args:
        objective: called with a batch, returns losses by name; `loss` is minimised, the others are only logged.
        groups: AdamW parameter groups; what is in none of them is frozen.
        draw: the batch of a number; numbers run through steps, accumulation and processes.
        folder: gets `log.jsonl` and the state to resume from.
        progress: told after every step.

    Raises:
        CheckpointError: the state to resume is damaged, or of another model.
        KeyboardInterrupt: it was told to stop, and has saved the state of the step that it finished.
    """
    accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
    chosen = {id(parameter) for group in groups for parameter in group["params"]}
    for parameter in objective.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98))
    peaks = [group["lr"] for group in optimizer.param_groups]
    done = resume(objective, optimizer, accelerator, folder)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    meter = Meter(folder / LOG, accelerator, done)
    with Interruption(accelerator) as interruption:
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
            progress("training", step + 1, config.steps)
            is_last, stops = step + 1 == config.steps, interruption.asked()
            if (step + 1) % config.log_every == 0 or is_last:
                meter.write(step + 1)
            if ((step + 1) % config.save_every == 0 or is_last or stops) and accelerator.is_main_process:
                save_state(objective, optimizer, accelerator, step + 1, folder)
            if stops:
                accelerator.wait_for_everyone()  # whoever leaves first may take the one that saves with it
                raise KeyboardInterrupt(f"step {step + 1} is saved, and the same command continues from there")
