"""Checkpoints of any size with random weights, for tests and benchmarks: `python -m devil.model.random_checkpoint`."""

from __future__ import annotations

import dataclasses
import math
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import tyro

from devil.command import Flag, run_command
from devil.config import PRESETS, DevilConfig, LanguageConfig, TokenConfig
from devil.errors import UsageError
from devil.model.random_scales import moments
from devil.model.stream import SHARD_BYTES, Dtype, write_checkpoint
from devil.progress import Progress, ProgressBars, no_progress

Size = Literal["2-layer", "0.5b", "7b"]

_BLOCK = 4_194_301  # random values that all tensors are cut from; prime, so that no two rows begin at the same one

_SMALL = dataclasses.replace(PRESETS["tiny"], tokens=TokenConfig(), max_tokens=1024)
SIZES: dict[Size, DevilConfig] = {
    "2-layer": dataclasses.replace(
        _SMALL, language=LanguageConfig(hidden=256, layers=2, heads=4, kv_heads=2, mlp=512, context=4096)
    ),
    "0.5b": dataclasses.replace(
        _SMALL,
        language=LanguageConfig(hidden=896, layers=24, heads=14, kv_heads=2, mlp=4864, vocab=151936, tied=True),
    ),
    "7b": PRESETS["7b"],
}


@dataclass(frozen=True)
class RandomCheckpointOptions:
    """Write a DEViL folder with random weights and a stand-in tokenizer, for tests and benchmarks.

    The same options give the same bytes. Weights are scaled by their inputs, so activations stay small in float16.
    """

    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder to write; it must not exist yet."""

    size: Size = "2-layer"
    """2-layer: seconds to run. 0.5b: Qwen2.5-0.5B with a small vision encoder and detector. 7b: the published sizes."""

    layers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Decoder layers of the language model, where not the size's own number."""

    dtype: Dtype = "float16"
    """Type of the weights."""

    shard_bytes: Annotated[int, tyro.conf.arg(metavar="BYTES")] = SHARD_BYTES
    """Weights beyond so many bytes are split into shards."""

    seed: int = 0
    """Everything random follows from it."""

    json: Flag = False
    """Print the result as one JSON document on the last line of stdout."""

    debug: Flag = False
    """Show the traceback of an error."""


def write_random_checkpoint(options: RandomCheckpointOptions, progress: Progress = no_progress) -> DevilConfig:
    """Writes the folder as a stream: memory does not grow with the model.

    Args:
        progress: is told the bytes written, and of how many.

    Raises:
        UsageError: a number that cannot be meant.
        OutputError: something lies at the output path, or the disk has too little room.
    """
    from devil.model.fitting import empty_model
    from devil.model.stand_in_tokenizer import stand_in_tokenizer

    config = _config(options)
    shapes = {name: tuple(weight.shape) for name, weight in empty_model(config).named_parameters()}
    pieces = _pieces(shapes, config, options)
    write_checkpoint(options.output, config, stand_in_tokenizer(), pieces, options.dtype, options.shard_bytes, progress)
    return config


def _config(options: RandomCheckpointOptions) -> DevilConfig:
    config = SIZES[options.size]
    if options.shard_bytes < 1 or (options.layers is not None and options.layers < 1):
        raise UsageError("--layers and --shard-bytes must be at least 1")
    if options.layers is None:
        return config
    return dataclasses.replace(config, language=dataclasses.replace(config.language, layers=options.layers))


def _pieces(
    shapes: dict[str, tuple[int, ...]], config: DevilConfig, options: RandomCheckpointOptions
) -> Callable[[str], Iterator[memoryview]]:
    """A function from a weight's name to its bytes, cut from blocks of random values."""
    import torch

    noise = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(options.seed))
    dtype = getattr(torch, options.dtype)

    @lru_cache(maxsize=32)  # there are some twenty scales
    def block(mean: float, deviation: float) -> memoryview:
        return memoryview((noise * deviation + mean).to(dtype).view(torch.uint8).numpy())

    def pieces(name: str) -> Iterator[memoryview]:
        source = block(*moments(name, shapes[name], config))
        start = zlib.crc32(name.encode()) % _BLOCK * dtype.itemsize
        left = math.prod(shapes[name]) * dtype.itemsize
        while left:
            piece = source[start : start + left]
            yield piece
            left -= piece.nbytes
            start = 0

    return pieces


def main(args: list[str] | None = None) -> int:
    return run_command(RandomCheckpointOptions, run, "python -m devil.model.random_checkpoint", args)


def run(options: RandomCheckpointOptions) -> dict:
    """Writes the folder, with a bar on stderr; returns what --json prints."""
    with ProgressBars() as progress:
        config = write_random_checkpoint(options, progress)
    size = sum(path.stat().st_size for path in options.output.iterdir())
    sys.stdout.write(f"{options.output} ({size / 1e9:.2f} GB, {config.language.layers} layers, {options.dtype})\n")
    return {"checkpoint": str(options.output), "bytes": size, "layers": config.language.layers}


if __name__ == "__main__":
    sys.exit(main())
