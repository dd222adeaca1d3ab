"""What is evaluated: a bundle on the runtime, or a checkpoint in PyTorch, asked in the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from devil.bundle import MANIFEST
from devil.clip import Clip
from devil.errors import MissingPackageError
from devil.files import digest_of, sha256
from devil.runtime.engines.choice import EngineName
from devil.runtime.limits import NO_LIMITS, Limits
from devil.tube import to_pixels
from devil.video import VideoInfo

Segment = tuple[int, int] | None


@dataclass(frozen=True)
class Reply:
    """What a model said of one sentence.

    Attributes:
        text: its words.
        span: seconds, as told; None where it told none.
        times: seconds of each sampled frame, as the prompt told them, float64 [T].
        frames: of the file, int64 [T].
        boxes: x1, y1, x2, y2 as fractions in every sampled frame, inside the span or not, float64 [T, 4]; nan where
            the answer names no object.
    """

    text: str
    span: tuple[float, float] | None
    times: np.ndarray
    frames: np.ndarray
    boxes: np.ndarray


class Answerer(Protocol):
    """Anything that can be asked.

    Attributes:
        identity: what distinguishes it from others, for the record: "model", "precision", "engine" and "digest", and
            "limits" where it has some.
    """

    identity: Mapping[str, str]

    def ask(self, path: Path, sentence: str, segment: Segment) -> Reply:
        """Finds what a sentence describes in (a segment of) a video.

        Raises:
            VideoError: the video cannot be read.
            SentenceError: the sentence cannot be asked.
        """
        ...


class BundleAnswerer:
    """A bundle on the runtime, as `devil-ground` uses it. The last video stays encoded for its next sentence.

    Args:
        like: a file as most of those that it will be asked about, for the check of memory; a 16:9 video by default.

    Attributes:
        rst: of the last answer, float32 [hidden]; None where it names no object.

    Raises:
        BundleError: the bundle cannot be used.
        UsageError: a limit that cannot be meant.
        EngineError: no engine here runs it, or memory is too small.
    """

    def __init__(
        self,
        folder: Path,
        threads: int = 0,
        limits: Limits = NO_LIMITS,
        check_memory: bool = True,
        engine: EngineName = "auto",
        trust_engines: bool = False,
        like: VideoInfo | None = None,
    ):
        from devil.runtime.pipeline import Grounder

        size, is_image = ((like.height, like.width), like.is_image) if like else (None, False)
        self._grounder = Grounder.open(folder, threads, limits, size, is_image, check_memory, engine, trust_engines)
        manifest = self._grounder.bundle.manifest
        self.identity = {
            "model": manifest.model,
            "precision": manifest.precision,
            "engine": self._grounder.engine.name,
            "digest": sha256(folder / MANIFEST),  # which lists the digest of every other file
        }
        if limits != NO_LIMITS:
            given = (f"{name} {value}" for name, value in vars(limits).items() if value is not None)
            self.identity["limits"] = ", ".join(given)
        self.rst: np.ndarray | None = None
        self._key, self._video = None, None

    def ask(self, path: Path, sentence: str, segment: Segment) -> Reply:
        self.rst = None
        if self._key != (path, segment):
            self._key, self._video = None, None  # frees the last one's memory
            self._video = self._grounder.encode(path, segment=segment)
            self._key = (path, segment)
        answer, clip = self._video.ground(sentence), self._video.clip
        self.rst = answer.rst
        span = (answer.span.start, answer.span.end) if answer.span else None
        width, height = clip.info.width, clip.info.height
        track = answer.track.boxes / (width, height, width, height) if answer.track else None
        return _reply(answer.text, span, clip, track)


class ModelAnswerer:
    """A checkpoint in PyTorch, fp32.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        MissingPackageError: PyTorch or transformers is not installed.
    """

    def __init__(self, folder: Path):
        import importlib.util

        for package in ("torch", "transformers", "safetensors"):
            if importlib.util.find_spec(package) is None:
                raise MissingPackageError(package, "evaluating a checkpoint", "model")
        from devil.model.checkpoint import load_model, tokenizer_file
        from devil.model.hub import local_folder
        from devil.model.inference import TorchGrounder
        from devil.prompt import PromptWriter

        name, folder = folder.resolve().name, local_folder(folder)
        model = load_model(folder)
        self._config = model.devil
        self._grounder = TorchGrounder(model, PromptWriter(tokenizer_file(folder), model.devil))
        self.identity = {
            "model": name,
            "precision": "fp32",
            "engine": "PyTorch",
            "digest": digest_of(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin")),
        }
        self._key, self._clip = None, None

    def ask(self, path: Path, sentence: str, segment: Segment) -> Reply:
        from devil.clip import load_clip

        if self._key != (path, segment):
            self._key, self._clip = None, None
            self._clip = load_clip(path, self._config, segment=segment)
            self._key = (path, segment)
        answer = self._grounder.ground(self._clip, sentence)
        span = (answer.span.start, answer.span.end) if answer.span else None
        track = None if answer.rst is None else to_pixels(answer.track, 1, 1)
        return _reply(answer.text, span, self._clip, track)


def _reply(text: str, span: tuple[float, float] | None, clip: Clip, track: np.ndarray | None) -> Reply:
    """From boxes [U, 4] in the distinct frames of a clip to boxes in its samples."""
    boxes = np.full((len(clip.rows), 4), np.nan) if track is None else track[clip.rows].astype(np.float64)
    return Reply(text, span, clip.times, clip.indices[clip.rows], boxes)
