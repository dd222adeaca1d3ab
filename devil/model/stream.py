"""Writing checkpoint folders as a stream: memory holds one tensor's next piece, whatever the size of the whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from devil.config import DevilConfig
from devil.config_json import to_hf
from devil.errors import OutputError
from devil.files import atomic_directory, check_room
from devil.progress import Progress, no_progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SHARD_BYTES = 5_000_000_000
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

Dtype = Literal["float16", "bfloat16", "float32"]
Shape = tuple[int, ...]
Pieces = Callable[[str], Iterable[memoryview]]

_NAMES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}
_SIZES = {"float16": 2, "bfloat16": 2, "float32": 4}


def write_checkpoint(
    output: Path,
    config: DevilConfig,
    tokenizer: Tokenizer,
    pieces: Pieces,
    dtype: Dtype,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = no_progress,
) -> None:
    """Writes a DEViL folder, whole or not at all.

    Args:
        pieces: as of `write_shards`.
        progress: is told the bytes written, and of how many.

    Raises:
        OutputError: something lies at the output path, or the disk has too little room.
    """
    from devil.model.fitting import empty_model

    if output.exists():
        raise OutputError(f"{output} exists", "remove it or name another folder")
    shapes = {name: tuple(weight.shape) for name, weight in empty_model(config).named_parameters()}
    check_room(output, total_bytes(shapes, dtype))
    with atomic_directory(output) as folder:
        (folder / "config.json").write_text(json.dumps(to_hf(config), indent=2) + "\n", encoding="utf-8")
        tokenizer.save(str(folder / "tokenizer.json"))
        write_shards(folder, shapes, dtype, pieces, shard_bytes, progress)


def write_shards(
    folder: Path,
    shapes: Mapping[str, Shape],
    dtype: Dtype,
    pieces: Pieces,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = no_progress,
) -> None:
    """Writes `model.safetensors`, or numbered shards and their index where they exceed `shard_bytes`.

    Args:
        shapes: every tensor's shape, in the order of the files.
        pieces: yields a tensor's bytes of that type, in row-major order.
    """
    total, done = total_bytes(shapes, dtype), 0

    def wrote(count: int) -> None:
        nonlocal done
        done += count
        progress("bytes", done, total)

    shards = list(_shards(shapes, _SIZES[dtype], shard_bytes))
    weight_map = {}
    for number, names in enumerate(shards, 1):
        path = folder / (WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors")
        _write_file(path, {name: shapes[name] for name in names}, dtype, pieces, wrote)
        weight_map |= dict.fromkeys(names, path.name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def total_bytes(shapes: Mapping[str, Shape], dtype: Dtype) -> int:
    return sum(math.prod(shape) for shape in shapes.values()) * _SIZES[dtype]


def _shards(shapes: Mapping[str, Shape], size: int, limit: int) -> Iterator[list[str]]:
    """Names in groups of at most `limit` bytes, or of one name."""
    names: list[str] = []
    filled = 0
    for name, shape in shapes.items():
        length = math.prod(shape) * size
        if names and filled + length > limit:
            yield names
            names, filled = [], 0
        names.append(name)
        filled += length
    yield names


def _write_file(
    path: Path, shapes: Mapping[str, Shape], dtype: Dtype, pieces: Pieces, wrote: Callable[[int], None]
) -> None:
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * _SIZES[dtype]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # values begin at a multiple of eight
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            for piece in pieces(name):
                file.write(piece)
                wrote(piece.nbytes)
