"""What comes out: the answer to one sentence, as Python values, as JSON (docs/answer.md) and drawn on the video."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from devil.answer import Span
from devil.files import write_text
from devil.tube import Tube
from devil.video import VideoInfo

SCHEMA = 1


@dataclass(frozen=True)
class Answer:
    """The answer to one sentence about one video or image.

    Attributes:
        info: the file.
        sentence: what was asked.
        text: what the language model said.
        span: the time span it told, in seconds; None where it told none.
        tube: one box per sampled frame of the span (per decoded frame when dense); None without [BOX].
        rst: float32 [hidden], the state that the detector was asked with; None without [BOX].
        problems: what the answer lacks, in plain words; empty when it is whole.
        timings: seconds per stage.
        run: bundle, precision and engine that answered.
        decoding: how the words came about: `tokens` said, `steps` of the language model behind the prompt, tokens
            `drafted` and `accepted` (docs/language.md).
        track: the tube's slot in every frame that the detector saw, inside the span or not; None without [BOX].
        origin: seconds of the file at which the span's 0 lies: where the segment that was asked about begins.
    """

    info: VideoInfo = field(repr=False)  # a printed answer fits a screen
    sentence: str
    text: str
    span: Span | None
    tube: Tube | None = field(repr=False)
    rst: np.ndarray | None = field(repr=False)
    problems: tuple[str, ...]
    timings: Mapping[str, float] = field(repr=False)
    run: Mapping[str, str] = field(repr=False)
    decoding: Mapping[str, int] = field(repr=False)
    track: Tube | None = field(default=None, repr=False)
    origin: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The JSON document of docs/answer.md."""
        info = self.info
        return {
            "schema": SCHEMA,
            "video": {
                "path": str(info.path),
                "width": info.width,
                "height": info.height,
                "frames": len(info.times),
                "seconds": float(info.duration),
            },
            "sentence": self.sentence,
            "text": self.text,
            "span": [self.span.start, self.span.end] if self.span else None,
            "score": round(self.tube.score, 6) if self.tube else None,
            "tube": _tube_values(self.tube) if self.tube else None,
            "problems": list(self.problems),
            "timings": {stage: round(seconds, 6) for stage, seconds in self.timings.items()},
            "decoding": dict(self.decoding),
            "run": dict(self.run),
        }

    def save(self, path: str | os.PathLike) -> None:
        """Writes the JSON document.

        Raises:
            OutputError: the file cannot be written.
        """
        save_document(self.to_json(), path)

    def render(self, path: str | os.PathLike, progress: Callable[[int, int], None] | None = None) -> None:
        """Writes the video with the tube, the sentence and the span drawn on it; an image for an image.

        Raises:
            OutputError: the file cannot be written.
        """
        from devil.runtime.render import render

        span = (self.span.start + self.origin, self.span.end + self.origin) if self.span else None
        boxes = boxes_per_frame(self.tube, [float(time) for time in self.info.times]) if self.tube else {}
        render(self.info, boxes, self.sentence, span, Path(path), progress)


def answers_document(answers: Sequence[Answer]) -> dict[str, Any]:
    """The JSON document of several answers about one file."""
    return {"schema": SCHEMA, "answers": [answer.to_json() for answer in answers]}


def save_document(document: Mapping[str, Any], path: str | os.PathLike) -> None:
    """
    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, json.dumps(document, indent=1) + "\n")


def boxes_per_frame(tube: Tube, times: list[float]) -> dict[int, np.ndarray]:
    """A box (x0, y0, x1, y1 pixels) for every frame from the tube's first to its last, interpolated in time.

    Args:
        times: seconds of all the video's frames.
    """
    frames = range(int(tube.frames[0]), int(tube.frames[-1]) + 1)
    wanted = np.array([times[frame] for frame in frames])
    sides = [np.interp(wanted, tube.times, tube.boxes[:, side]) for side in range(4)]
    return dict(zip(frames, np.stack(sides, 1), strict=True))


def _tube_values(tube: Tube) -> dict[str, list]:
    return {
        "frames": tube.frames.tolist(),
        "times": [round(time, 6) for time in tube.times.tolist()],
        "boxes": [[round(side, 2) for side in box] for box in tube.boxes.tolist()],
        "scores": [round(score, 6) for score in tube.scores.tolist()],
    }
