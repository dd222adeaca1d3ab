"""The start of a training from published weights: `python -m devil.model.starting`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from devil.command import Flag, Folder, run_command
from devil.errors import CheckpointError
from devil.model.stream import Dtype, write_checkpoint
from devil.progress import Progress, ProgressBars, no_progress

if TYPE_CHECKING:
    from devil.model.weights import WeightSource


@dataclass(frozen=True)
class StartingOptions:
    """Write a DEViL folder that training can start from, out of published models.

    What no published model has begins as random values: DEViL's layer between language model and detector always, the
    detector without --detector, the projector where the base has none.
    """

    base: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Language model, with vision encoder and projector where it has them: VideoLLaMA3, Qwen2.5 or DEViL. A folder or a
    Hub id."""

    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder to write; it must not exist yet."""

    vision: Folder = None
    """Vision encoder alone (VL3-SigLIP-NaViT), instead of the base's. A folder or a Hub id."""

    detector: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Grounding DINO: the published .pth file, or transformers' folder or Hub id."""

    dtype: Dtype = "float16"
    """Type of the weights."""

    seed: int = 0
    """Of the random values."""

    json: Flag = False
    """Print the result as one JSON document on the last line of stdout."""

    debug: Flag = False
    """Show the traceback of an error."""


def write_start(options: StartingOptions, progress: Progress = no_progress) -> list[str]:
    """Writes the folder, one weight at a time.

    Returns:
        What begins as random values.

    Raises:
        CheckpointError: a model is missing or broken, does not fit, or holds values beyond the type.
        ConfigError: the sizes contradict each other.
        OutputError: something lies at the output path, or the disk has too little room.
    """
    from devil.model.hub import local_folder
    from devil.model.starting_config import starting_config, starting_tokenizer
    from devil.model.starting_weights import join, open_detector
    from devil.model.weights import open_weights

    base = local_folder(options.base)
    vision = None if options.vision is None else local_folder(options.vision)
    sources = {folder: open_weights(folder) for folder in (base, vision) if folder is not None}
    detector = None
    if options.detector is not None:
        sources[options.detector], detector = open_detector(options.detector)
    tokenizer = starting_tokenizer(base)
    config = starting_config(base, vision, detector, tokenizer)
    source, random = join(sources, config, options.seed)
    write_checkpoint(
        options.output, config, tokenizer, lambda name: [_bytes(source, name, options.dtype)], options.dtype,
        progress=progress,
    )  # fmt: skip
    return random


def _bytes(source: WeightSource, name: str, dtype: Dtype) -> memoryview:
    import torch

    from devil.model.sources.finite import all_finite

    value = source.read(name).to(getattr(torch, dtype)).contiguous()
    if not all_finite(value):
        raise CheckpointError(f"{name} has values beyond {dtype}", "use --dtype bfloat16 or float32")
    return memoryview(value.view(-1).view(torch.uint8).numpy())


def main(args: list[str] | None = None) -> int:
    return run_command(StartingOptions, run, "python -m devil.model.starting", args)


def run(options: StartingOptions) -> dict:
    """Writes the folder, with a bar on stderr; returns what --json prints."""
    with ProgressBars() as progress:
        random = write_start(options, progress)
    size = sum(path.stat().st_size for path in options.output.iterdir())
    sys.stdout.write(f"{options.output} ({size / 1e9:.2f} GB); random: {', '.join(random) or 'nothing'}\n")
    return {"checkpoint": str(options.output), "bytes": size, "random": random}


if __name__ == "__main__":
    sys.exit(main())
