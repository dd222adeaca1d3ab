"""What ships in the package: the reference checkpoint, and a clip to show it on."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

CHECKPOINT = "devil-tiny"


def asset(name: str) -> Path:
    """The path of a shipped file or folder."""
    return Path(str(resources.files(__name__))) / name


def reference_checkpoint() -> Path:
    """The folder of devil-tiny, trained on synthetic clips."""
    return asset(CHECKPOINT)


def demo_request() -> tuple[Path, str]:
    """The shipped clip and the sentence to ask about it."""
    return asset("demo.mp4"), json.loads(asset("demo.json").read_text(encoding="utf-8"))["sentence"]
