"""Writing safetensors shards as a stream: memory holds one tensor's next piece, whatever the size of the whole."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

SHARD_BYTES = 5_000_000_000
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

Shape = tuple[int, ...]
Pieces = Callable[[str], Iterable[memoryview]]

_SIZES = {"F32": 4, "F16": 2, "BF16": 2}


def write_shards(
    folder: Path,
    shapes: Mapping[str, Shape],
    dtype: str,
    pieces: Pieces,
    shard_bytes: int = SHARD_BYTES,
    wrote: Callable[[int], None] = lambda _bytes: None,
) -> None:
    """Writes `model.safetensors`, or numbered shards and their index where they exceed `shard_bytes`.

    Args:
        shapes: every tensor's shape, in the order of the files.
        dtype: "F32", "F16" or "BF16".
        pieces: yields a tensor's bytes, in row-major order.
        wrote: is told the bytes written since the last call.
    """
    shards = list(_shards(shapes, _SIZES[dtype], shard_bytes))
    weight_map = {}
    for number, names in enumerate(shards, 1):
        path = folder / (WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors")
        _write_file(path, {name: shapes[name] for name in names}, dtype, pieces, wrote)
        weight_map |= dict.fromkeys(names, path.name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total_bytes(shapes, dtype)}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def total_bytes(shapes: Mapping[str, Shape], dtype: str) -> int:
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
    path: Path, shapes: Mapping[str, Shape], dtype: str, pieces: Pieces, wrote: Callable[[int], None]
) -> None:
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * _SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # values begin at a multiple of eight
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            for piece in pieces(name):
                file.write(piece)
                wrote(piece.nbytes)
