"""One stage from checkpoint to checkpoint: what `devil-train` does once its options are known to make sense."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object
from torch import nn

from devil.assets import reference_checkpoint
from devil.data.annotation import Problem, Record, summary
from devil.errors import AnnotationError, UsageError
from devil.files import sha256
from devil.model.checkpoint import load_model, save_model, tokenizer_file
from devil.model.devil import DevilModel
from devil.model.hub import local_folder
from devil.progress import Progress, ProgressBars, no_progress
from devil.prompt import PromptWriter
from devil.training.grounding import GroundingObjective, record_batch
from devil.training.identity import check_run, keep_run, model_digest
from devil.training.loop import LOG, LoopConfig, train
from devil.training.options import TrainOptions
from devil.training.stages import BATCH, DETECTS, add_lora, parameter_groups
from devil.training.state import STATE
from devil.training.usable import Draw, unusable

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def train_stage(options: TrainOptions, records: Sequence[Record], problems: Sequence[Problem]) -> dict[str, Any] | None:
    """Trains on `records` and saves the checkpoint.

    Args:
        problems: records that were left out before, for the result.

    Returns:
        The result as JSON values, in the first process only.

    Raises:
        DevilError: as `devil.training.cli.run` tells.
    """
    start, folder = options.model or reference_checkpoint(), options.run_folder
    accelerator = _accelerator(options)
    batch = options.batch or BATCH[options.stage]
    if batch % accelerator.num_processes:
        count = accelerator.num_processes
        raise UsageError(f"--batch {batch} cannot be shared by {count} processes", f"give a multiple of {count}")
    run = _identity(options, batch)
    check_run(folder, run, STATE)  # before files are opened, which may take long
    records, left_out = _usable(options, records, accelerator)
    problems = [*problems, *left_out]
    steps = options.steps or max(1, round(options.epochs * len(records) / batch))
    model = load_model(start)
    model.devil = dataclasses.replace(model.devil, frames=options.frames or model.devil.frames)
    run |= {"frames": model.devil.frames, "records": len(records), "steps": steps}
    check_run(folder, run, STATE)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        keep_run(folder, run)
        sys.stderr.writelines(f"left out  {count} × {reason}\n" for reason, count in summary(problems).items())
        sys.stderr.write(f"log       {folder / LOG}\n")
    if options.tensorboard:
        accelerator.init_trackers("events")
    writer = PromptWriter(tokenizer_file(start), model.devil)
    adapted = _prepared(model, options)
    rates = options.detector_rate, options.language_rate
    draw = Draw(records, lambda record: record_batch(record, model.devil, writer), options.seed)
    accumulate = batch // accelerator.num_processes
    with _bars(accelerator) as progress:
        train(
            GroundingObjective(model, DETECTS[options.stage]),
            parameter_groups(model, options.stage, *rates, adapted is not None, options.vision),
            draw,
            LoopConfig(steps, accumulate=accumulate, seed=options.seed, save_every=options.save_every, log_every=1),
            folder,
            accelerator,
            progress,
        )
    broken = {problem.index: problem for problem in gather_object(draw.problems)}
    is_main = accelerator.is_main_process
    accelerator.end_training()
    if not is_main:
        return None
    model = adapted.merge_and_unload() if adapted is not None else model
    save_model(model.eval(), options.output, tokenizer_file(start), _DTYPES[options.save_as])
    sys.stdout.write(f"written   {options.output}\n")
    left_out = summary([*problems, *broken.values()])
    return {"checkpoint": str(options.output), "steps": steps, "records": len(records), "left_out": left_out}


def _accelerator(options: TrainOptions) -> Accelerator:
    """
    Raises:
        UsageError: fp16 on a CPU, where nothing would be computed in it.
    """
    if options.precision == "fp16" and not torch.cuda.is_available():
        raise UsageError("--precision fp16 needs a GPU", "give bf16 or fp32")
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if options.precision == "fp32" else options.precision,
        log_with="tensorboard" if options.tensorboard else None,
        project_dir=options.run_folder,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _bars(accelerator: Accelerator) -> AbstractContextManager[Progress]:
    """Of the first process; the others show none."""
    return ProgressBars() if accelerator.is_main_process else nullcontext(no_progress)


def _identity(options: TrainOptions, batch: int) -> dict[str, Any]:
    """What a run is of, so far as that is known before its files are opened. How many processes share the batch
    changes nothing.
    """
    return {
        "data": sha256(options.data),
        "format": options.format,
        "model": model_digest(local_folder(options.model or reference_checkpoint())),
        "batch": batch,
    } | {
        name: getattr(options, name)
        for name in ("stage", "detector_rate", "language_rate", "lora", "vision", "precision", "seed")
    }


def _usable(
    options: TrainOptions, records: Sequence[Record], accelerator: Accelerator
) -> tuple[list[Record], list[Problem]]:
    """The records that can be trained on, the same in all processes, and why the others are left out.

    Raises:
        AnnotationError: there is none.
    """
    share = accelerator.process_index, accelerator.num_processes
    with _bars(accelerator) as progress:
        problems = gather_object(unusable(records, share, progress))
    if len(problems) == len(records):
        raise AnnotationError(
            f"no record of {options.data} can be used ({problems[0].reason})", "check --root and --format"
        )
    left_out = {problem.index for problem in problems}
    return [record for number, record in enumerate(records) if number not in left_out], problems


def _prepared(model: DevilModel, options: TrainOptions) -> nn.Module | None:
    """Sets a model up for training; what `add_lora` returns, where it was asked for."""
    adapted = add_lora(model, options.lora) if options.lora else None
    if options.checkpointing:
        model.gradient_checkpointing_enable()
    if options.flash_attention:
        model.set_attn_implementation("flash_attention_2")
    model.train()
    return adapted
