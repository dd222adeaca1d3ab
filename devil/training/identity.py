"""What a run is of, beside its state: only the same run continues from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devil.errors import OutputError
from devil.files import sampled_sha256, write_text

RUN = "run.json"
_OF_A_MODEL = ("*.json", "*.safetensors", "*.bin")


def check_run(folder: Path, run: Mapping[str, Any], state: str) -> None:
    """Refuses to continue another run than the one whose state lies in `folder`.

    Args:
        run: what is known of the wanted run, by name; what is not in it is not compared.
        state: name of the state's file; where there is none, nothing can be continued.

    Raises:
        OutputError: with the names of what differs.
    """
    if not (folder / state).exists():
        return
    try:
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict):
        different = [name for name, value in run.items() if found.get(name) != value]
        if not different:
            return
        told = [f"{name} {found[name]} instead of {run[name]}" for name in different if _is_short(name, found, run)]
        told += [f"other {name}" for name in different if not _is_short(name, found, run)]
    else:
        told = ["something that it does not tell"]
    raise OutputError(
        f"{folder} holds a run of {', '.join(told)}", f"name another --output, or remove {folder} to start anew"
    )


def keep_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Writes down what the run in `folder` is of."""
    write_text(folder / RUN, json.dumps(dict(run), indent=1) + "\n")


def model_digest(folder: Path) -> str:
    """Changes with a checkpoint's config, tokenizer and weights; of large files a sample is read."""
    files = sorted({path for pattern in _OF_A_MODEL for path in folder.glob(pattern)})
    listed = "".join(f"{path.name}{sampled_sha256(path)}" for path in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _is_short(name: str, found: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether a difference can be told by its values, as that of a digest cannot."""
    return name in found and all(not isinstance(of[name], str) or len(of[name]) < 16 for of in (found, run))
