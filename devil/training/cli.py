"""`devil-train`: one stage of training on annotated clips or images."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from devil.assets import reference_checkpoint
from devil.command import Count, Flag, Folder, Number, Real, run_command
from devil.config_json import load_config
from devil.data.annotation import Problem, Record, summary
from devil.data.hcstvg import read_hcstvg
from devil.data.records import read_records
from devil.data.refcoco import read_refcoco
from devil.data.vidstg import read_vidstg
from devil.errors import AnnotationError, DevilError, MissingPackageError, OutputError, UsageError
from devil.files import check_folder_writable, check_writable
from devil.model.hub import local_folder
from devil.model.stream import WEIGHTS

Dtype = Literal["fp32", "fp16", "bf16"]
Format = Literal["chat", "hc_stvg", "vidstg", "refcoco"]
_READERS = {
    "chat": read_records,
    "hc_stvg": read_hcstvg,
    "vidstg": lambda path, root: read_vidstg(path, root, root),
    "refcoco": read_refcoco,
}
CHECKPOINT_FILES = {"config.json", "tokenizer.json", WEIGHTS}  # what save_model writes


@dataclass(frozen=True)
class TrainOptions:
    """Train one stage of DEViL. A run that was killed continues when the same command is started again."""

    stage: Literal[1, 2, 3]
    """1 images; 2 videos, detector frozen; 3 videos, everything together."""
    data: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Annotations, in the format that --format names."""
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the new checkpoint. The run's states and its log go to DIR-run."""
    format: Format = "chat"
    """Format of the annotations: chat records (a JSON list or JSON lines), or a published data set's own files."""
    root: Folder = None
    """Folder of the videos or images, and for VidSTG of VidOR's annotations. By default the annotations' own."""
    model: Folder = None
    """Checkpoint folder, or Hub id, to start from. By default the shipped devil-tiny. From other published weights,
    begin with python -m devil.model.starting."""
    epochs: Real = 2.0
    """Passes over the data."""
    steps: Count = None
    """Optimizer steps, instead of --epochs."""
    batch: Count = None
    """Clips per optimizer step, over all processes. By default 128 in stages 1 and 2, 32 in stage 3."""
    detector_rate: Real = 1e-4
    """Learning rate of the detector."""
    language_rate: Real = 1e-5
    """Learning rate of language model and projector."""
    lora: Number = 256
    """Rank of the language model's adapters. With 0 its own weights are trained."""
    vision: Flag = False
    """Also train the vision encoder."""
    frames: Count = None
    """Frames sampled from a clip. By default the model's own number."""
    precision: Dtype = "fp32"
    """Precision of the arithmetic; weights stay fp32."""
    save_as: Dtype = "fp16"
    """Precision of the saved weights."""
    checkpointing: Flag = False
    """Recompute the language model's activations instead of keeping them."""
    flash_attention: Flag = False
    """Use the flash-attn package in the language model."""
    tensorboard: Flag = False
    """Also write TensorBoard events to DIR-run."""
    seed: Number = 0
    """Everything random follows from it."""
    save_every: Number = 100
    """Steps between two states to resume from."""
    json: Flag = False
    """Print the result as one JSON line at the end of stdout."""
    debug: Flag = False
    """Show tracebacks."""


def main(args: list[str] | None = None) -> int:
    """Entry point of `devil-train`."""
    return run_command(TrainOptions, run, "devil-train", args)


def run(options: TrainOptions) -> dict[str, Any]:
    """Trains, saves the checkpoint and says what was done.

    Raises:
        UsageError: a number that cannot be meant.
        OutputError: the output folder holds what is no checkpoint.
        AnnotationError: no record of the file can be used.
        CheckpointError: the model, or the state to resume, does not fit.
    """
    _check(options)
    records, problems = _records(options)
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs

    from devil.model.checkpoint import load_model, save_model, tokenizer_file
    from devil.prompt import PromptWriter
    from devil.training.grounding import GroundingObjective, record_batch
    from devil.training.loop import LoopConfig, permuted, train
    from devil.training.stages import BATCH, DETECTS, add_lora, parameter_groups

    start = options.model or reference_checkpoint()
    folder = _run_folder(options)
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
    writer = PromptWriter(tokenizer_file(start), model.devil)
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
        save_model(model.eval(), options.output, tokenizer_file(start), dtype)
    return {
        "checkpoint": str(options.output),
        "steps": steps,
        "records": len(records),
        "left_out": summary(problems),
    }


def _check(options: TrainOptions) -> None:
    """Fails before the long work, not after it."""
    for package in _needed(options):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package, "training", "train")
    if options.flash_attention and importlib.util.find_spec("flash_attn") is None:
        raise DevilError("--flash-attention needs flash-attn, which is not installed", "install it, or leave it out")
    for name in ("epochs", "steps", "batch", "frames", "save_every", "detector_rate", "language_rate"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} is {value}", "give a number above 0")
    if options.lora < 0:
        raise UsageError(f"--lora is {options.lora}", "give a rank, or 0 to train the weights themselves")
    check_folder_writable(options.output)
    check_writable(options.output / "config.json")
    check_writable(_run_folder(options) / "state.pt")
    foreign = sorted(path.name for path in options.output.glob("*") if path.name not in CHECKPOINT_FILES)
    if foreign:
        raise OutputError(
            f"{options.output} also holds {foreign[0]}, which is no part of a checkpoint", "move it elsewhere"
        )
    if not options.data.is_file():  # before a checkpoint is fetched, which may take long
        raise AnnotationError(f"{options.data} is not a file", "name the annotations")
    load_config(local_folder(options.model or reference_checkpoint()))


def _run_folder(options: TrainOptions) -> Path:
    """Folder of the run's states and its log."""
    return options.output.with_name(options.output.name + "-run")


def _needed(options: TrainOptions) -> list[str]:
    adapters = ["peft"] if options.lora else []
    events = ["tensorboard"] if options.tensorboard else []
    return ["torch", "transformers", "accelerate", *adapters, *events]


def _records(options: TrainOptions) -> tuple[list[Record], list[Problem]]:
    records, problems = _READERS[options.format](options.data, options.root or options.data.parent)
    if not records:
        reason = problems[0].reason if problems else "it is empty"
        raise AnnotationError(f"{options.data} has no record that can be used ({reason})", "check --root and --format")
    return records, problems


if __name__ == "__main__":
    sys.exit(main())
