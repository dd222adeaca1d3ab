"""`devil-train`: one stage of training on annotated clips or images."""

from __future__ import annotations

import importlib.util
import math
import sys
from typing import Any

from devil.assets import reference_checkpoint
from devil.command import run_command
from devil.config_json import load_config
from devil.data.annotation import Problem, Record
from devil.data.hcstvg import read_hcstvg
from devil.data.records import read_records
from devil.data.refcoco import read_refcoco
from devil.data.vidstg import read_vidstg
from devil.errors import AnnotationError, DevilError, MissingPackageError, OutputError, UsageError
from devil.files import check_folder_writable, check_writable
from devil.model.hub import local_folder
from devil.model.stream import WEIGHTS
from devil.training.options import TrainOptions

_READERS = {
    "chat": read_records,
    "hc_stvg": read_hcstvg,
    "vidstg": lambda path, root: read_vidstg(path, root, root),
    "refcoco": read_refcoco,
}
CHECKPOINT_FILES = {"config.json", "tokenizer.json", WEIGHTS}  # what save_model writes


def main(args: list[str] | None = None) -> int:
    """Entry point of `devil-train`."""
    return run_command(TrainOptions, run, "devil-train", args)


def run(options: TrainOptions) -> dict[str, Any] | None:
    """Trains, saves the checkpoint and says what was done; of several processes only the first says it.

    Raises:
        UsageError: an option that cannot be meant, or that contradicts the data.
        OutputError: the output folder holds what is no checkpoint, or the state of another run.
        AnnotationError: no record of the file can be used.
        VideoError: clip after clip cannot be decoded.
        CheckpointError: the model, or the state to resume, does not fit.
    """
    _check(options)
    records, problems = _records(options)
    from devil.training.stage_run import train_stage

    return train_stage(options, records, problems)


def _check(options: TrainOptions) -> None:
    """Fails before the long work, not after it."""
    for package in _needed(options):
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(package, "training", "train")
    if options.flash_attention and options.precision == "fp32":
        raise UsageError("--flash-attention has no fp32", "add --precision bf16 or fp16, or leave it out")
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
    check_writable(options.run_folder / "state.pt")
    foreign = sorted(path.name for path in options.output.glob("*") if path.name not in CHECKPOINT_FILES)
    if foreign:
        raise OutputError(
            f"{options.output} also holds {foreign[0]}, which is no part of a checkpoint", "move it elsewhere"
        )
    if not options.data.is_file():  # before a checkpoint is fetched, which may take long
        raise AnnotationError(f"{options.data} is not a file", "name the annotations")
    load_config(local_folder(options.model or reference_checkpoint()))


def _needed(options: TrainOptions) -> list[str]:
    adapters = ["peft"] if options.lora else []
    events = ["tensorboard"] if options.tensorboard else []
    return ["torch", "transformers", "accelerate", *adapters, *events]


def _records(options: TrainOptions) -> tuple[list[Record], list[Problem]]:
    records, problems = _READERS[options.format](options.data, options.root or options.data.parent)
    if not records:
        reason = problems[0].reason if problems else "it is empty"
        raise AnnotationError(f"{options.data} has no record that can be used ({reason})", "check --root and --format")
    wants_images = options.stage == 1
    strange = sum(record.is_image != wants_images for record in records)
    if strange:
        wanted, found = ("images", "videos") if wants_images else ("videos", "images")
        raise UsageError(
            f"--stage {options.stage} trains on {wanted}, and {strange} of {len(records)} records are about {found}",
            "name another --stage or other --data",
        )
    return records, problems


if __name__ == "__main__":
    sys.exit(main())
