"""Weights spread over several files, with an index that tells which key lies in which."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from devil.errors import CheckpointError
from devil.model.sources.base import COPY_AGAIN, WeightSource
from devil.model.sources.joined import Joined


def open_shards(folder: Path, name: str, open_file: Callable[[Path], WeightSource]) -> WeightSource:
    """The files that `name`.index.json lists, or the one file `name` where there is no index.

    Raises:
        CheckpointError: a file is absent or broken, or the index and its files disagree on what lies where.
    """
    index = folder / f"{name}.index.json"
    weight_map = _weight_map(index) if index.exists() else None
    names = [name] if weight_map is None else sorted(set(weight_map.values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}", COPY_AGAIN)
    files = {name: open_file(folder / name) for name in names}
    if weight_map is not None:
        _check(index, weight_map, files)
    return Joined(files.values())


def _weight_map(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        inside = all(Path(name).name == name for name in weight_map.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of shards", COPY_AGAIN) from error
    if not inside or not weight_map:
        raise CheckpointError(f"{index} is not an index of the shards beside it", COPY_AGAIN)
    return weight_map


def _check(index: Path, weight_map: dict[str, str], files: dict[str, WeightSource]) -> None:
    wrong = [key for key, name in weight_map.items() if key not in files[name].entries]
    wrong += [key for name, file in files.items() for key in file.entries if weight_map.get(key) != name]
    if wrong:
        shown = sorted(set(wrong))[0]
        raise CheckpointError(
            f"{index.name} and the shards of {index.parent} disagree on where {shown} lies", COPY_AGAIN
        )
