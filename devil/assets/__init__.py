"""What ships in the package: the reference checkpoint, and a clip to show it on."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from devil.prompt import QUERY_END, QUERY_START

CHECKPOINT = "devil-tiny"


def asset(name: str) -> Path:
    """The path of a shipped file or folder."""
    return Path(str(resources.files(__name__))) / name


def reference_checkpoint() -> Path:
    """The folder of devil-tiny, trained on synthetic clips."""
    return asset(CHECKPOINT)


def demo_request() -> tuple[Path, str]:
    """The shipped clip and the sentence to ask about it."""
    record = json.loads(asset("demo.json").read_text(encoding="utf-8"))[0]
    question = record["conversations"][0]["value"]
    return asset("demo.mp4"), question.split(QUERY_START)[1].split(QUERY_END)[0]
