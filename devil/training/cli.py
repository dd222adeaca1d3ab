"""`devil-train`: one stage of training on annotated clips or images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from devil.assets import reference_checkpoint
from devil.command import run_command
from devil.errors import AnnotationError

Dtype = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class TrainOptions:
    """Train one stage of DEViL on chat records; a run that was killed continues when it is started again.

    Attributes:
        stage: 1 images; 2 videos, detector frozen; 3 videos, everything together.
        data: annotation file of chat records (a JSON list or JSON lines).
        output: folder of the new checkpoint; the run's state and log go to OUTPUT-run.
        model: checkpoint folder to start from; by default the one that ships.
        epochs: passes over the data.
        steps: optimizer steps; overrides epochs.
        batch: clips per optimizer step, over all processes; by default 128 in stages 1 and 2, 32 in stage 3.
        detector_rate: learning rate of the detector.
        language_rate: learning rate of language model and projector.
        lora: rank of the language model's adapters; 0 trains its own weights.
        vision: also train the vision encoder.
        frames: frames sampled from a clip, where not the model's own number.
        precision: of the arithmetic; weights stay fp32.
        save_as: precision of the saved weights.
        checkpointing: recompute the language model's activations instead of keeping them.
        flash_attention: use the flash-attn package in the language model.
        tensorboard: also write TensorBoard events to OUTPUT-run.
        seed: everything random follows from it.
        save_every: steps between two states to resume from.
        debug: show tracebacks.
        json: end with one line of JSON.
    """

    stage: Literal[1, 2, 3]
    data: Path
    output: Path
    model: Path | None = None
    epochs: float = 2.0
    steps: int | None = None
    batch: int | None = None
    detector_rate: float = 1e-4
    language_rate: float = 1e-5
    lora: int = 256
    vision: bool = False
    frames: int | None = None
    precision: Dtype = "fp32"
    save_as: Dtype = "fp16"
    checkpointing: bool = False
    flash_attention: bool = False
    tensorboard: bool = False
    seed: int = 0
    save_every: int = 100
    debug: bool = False
    json: bool = False


def main(args: list[str] | None = None) -> int:
    """Entry point of `devil-train`."""
    return run_command(TrainOptions, run, "devil-train", args)


def run(options: TrainOptions) -> dict[str, Any]:
    """Trains, saves the checkpoint and says what was done.

    Raises:
        AnnotationError: no record of the file can be used.
        CheckpointError: the model, or the state to resume, does not fit.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs

    from devil.data.annotation import summary
    from devil.data.records import read_records
    from devil.model.checkpoint import TOKENIZER, load_model, save_model
    from devil.prompt import PromptWriter
    from devil.training.grounding import GroundingObjective, record_batch
    from devil.training.loop import LoopConfig, permuted, train
    from devil.training.stages import BATCH, DETECTS, add_lora, parameter_groups

    records, problems = read_records(options.data)
    if not records:
        raise AnnotationError(f"none of the {len(problems)} records of {options.data} can be used", str(problems[:1]))
    start = options.model or reference_checkpoint()
    folder = options.output.with_name(options.output.name + "-run")
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if options.precision == "fp32" else options.precision,
        log_with="tensorboard" if options.tensorboard else None,
        project_dir=folder,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if options.tensorboard:
        accelerator.init_trackers("events")
    model = load_model(start)
    model.devil = dataclasses.replace(model.devil, frames=options.frames or model.devil.frames)
    writer = PromptWriter(start / TOKENIZER, model.devil)
    adapted = add_lora(model, options.lora) if options.lora else None
    if options.checkpointing:
        model.gradient_checkpointing_enable()
    if options.flash_attention:
        model.set_attn_implementation("flash_attention_2")
    model.train()
    batch = options.batch or BATCH[options.stage]
    accumulate = max(1, batch // accelerator.num_processes)
    per_step = accumulate * accelerator.num_processes
    steps = options.steps or max(1, round(options.epochs * len(records) / per_step))
    rates = options.detector_rate, options.language_rate
    train(
        GroundingObjective(model, DETECTS[options.stage]),
        parameter_groups(model, options.stage, *rates, adapted is not None, options.vision),
        lambda number: record_batch(records[permuted(number, len(records), options.seed)], model.devil, writer),
        LoopConfig(steps, accumulate=accumulate, seed=options.seed, save_every=options.save_every, log_every=1),
        folder,
        accelerator,
    )
    accelerator.end_training()
    if accelerator.is_main_process:
        model = adapted.merge_and_unload() if adapted is not None else model
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[options.save_as]
        save_model(model.eval(), options.output, start / TOKENIZER, dtype)
    return {
        "checkpoint": str(options.output),
        "steps": steps,
        "records": len(records),
        "left_out": summary(problems),
    }
