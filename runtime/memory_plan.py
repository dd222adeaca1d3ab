"""How much memory a bundle will take, told before anything is loaded, and the largest settings that fit.

What is counted: weights as the engine keeps them, the KV cache, the frames and features that a video keeps, and all
graphs' activations. The estimates lean to the safe side; tests hold them against measured peaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from devil.bundle import Manifest
from devil.config import DevilConfig, level_shapes
from devil.contract import GRAPHS, Precision
from devil.errors import EngineError
from devil.preprocess import detector_size, vision_size
from devil.runtime.batches import BATCH_PATCHES
from devil.runtime.packed_run import CACHE_STEP, CHUNK, SCORE_BYTES
from devil.runtime.tubes import BATCH_PIXELS
from devil.runtime.weight_memory import loaded_weights

_ASPECT = (9, 16)  # of a video that nobody has looked at yet, height and width
_BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2}

_LOADED_BEFORE = 200 << 20  # Python and its packages, the engine, the video decoder


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose, on one engine."""

    weights: int
    cache: int
    video: int
    activations: int

    @property
    def total(self) -> int:
        return _LOADED_BEFORE + self.weights + self.cache + self.video + self.activations

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {value / 1e9:.2f}" for name, value in vars(self).items())
        return f"{self.total / 1e9:.2f} GB ({parts})"


def plan(
    manifest: Manifest, config: DevilConfig, size: tuple[int, int] | None = None, is_image: bool = False
) -> MemoryPlan:
    """What a bundle takes for one video or image on ONNX Runtime's CPU provider.

    Args:
        manifest: of the bundle; gives the files' sizes and types.
        config: the bundle's, with limits applied.
        size: (height, width) of the video in pixels; a 16:9 one of the detector's size by default.
        is_image: one frame, which takes the visual tokens of all of them.
    """
    sketch = _sketch(manifest, config, size, is_image)
    return MemoryPlan(sketch.weights, sketch.cache, sketch.video, sum(sketch.activations.values()))


def activations(
    manifest: Manifest, config: DevilConfig, size: tuple[int, int] | None = None, is_image: bool = False
) -> dict[str, int]:
    """Bytes that each graph takes while it runs, by its name. Arguments as for `plan`, which counts all of them
    together, because every session keeps its arena."""
    return _sketch(manifest, config, size, is_image).activations


def _sketch(manifest: Manifest, config: DevilConfig, size: tuple[int, int] | None, is_image: bool) -> _Sketch:
    return _Sketch(manifest, config, 1 if is_image else config.frames, size or _assumed_size(config))


def check_fits(
    manifest: Manifest,
    config: DevilConfig,
    available: int,
    size: tuple[int, int] | None = None,
    is_image: bool = False,
) -> None:
    """Refuses what cannot fit. Arguments as for `plan`; `available` are the bytes there are.

    Raises:
        EngineError: it does not; the mend names settings that do.
    """
    needed = plan(manifest, config, size, is_image)
    if needed.total > available:
        told = f"this is estimated to need {needed}, and {available / 1e9:.2f} GB are free"
        raise EngineError(told, _mend(manifest, config, available, size, is_image))


def largest_frames(
    manifest: Manifest, config: DevilConfig, available: int, size: tuple[int, int] | None = None
) -> int | None:
    """The most frames that fit, with visual tokens in proportion; None where not even one does."""

    def fits(frames: int) -> bool:
        return plan(manifest, _in_proportion(config, frames), size).total <= available

    return _most(config.frames, fits)


def largest_tokens(
    manifest: Manifest, config: DevilConfig, available: int, size: tuple[int, int] | None = None
) -> int | None:
    """The most visual tokens of an image that fit; None where not even one does."""

    def fits(tokens: int) -> bool:
        return plan(manifest, replace(config, max_tokens=tokens), size, is_image=True).total <= available

    return _most(config.max_tokens, fits)


def _most(highest: int, fits: Callable[[int], bool]) -> int | None:
    """The largest number from 1 to `highest` that fits, where smaller ones fit too; None where none does."""
    low, high = 0, highest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low or None


def _mend(manifest: Manifest, config: DevilConfig, available: int, size: tuple[int, int] | None, is_image: bool) -> str:
    """Settings that fit, as options of the commands."""
    if is_image:
        tokens = largest_tokens(manifest, config, available, size)
        fits = f"--max-tokens {tokens} fits" if tokens else None
    else:
        frames = largest_frames(manifest, config, available, size)
        tokens = frames and _in_proportion(config, frames).max_tokens
        fits = f"--max-frames {frames} --max-tokens {tokens} fits" if frames else None
    fits = fits or "even the smallest input is too much: use a smaller precision or a larger machine"
    return f"{fits}; --ignore-memory (check_memory=False) tries it all the same"


def _in_proportion(config: DevilConfig, frames: int) -> DevilConfig:
    """The config for fewer frames with as many visual tokens each."""
    return replace(config, frames=frames, max_tokens=max(frames, config.max_tokens * frames // config.frames))


def _assumed_size(config: DevilConfig) -> tuple[int, int]:
    return detector_size(*_ASPECT, config.detector)


@dataclass(frozen=True)
class _Sketch:
    """The sizes behind a plan. All graphs compute in float32 on a CPU, whatever their files hold."""

    manifest: Manifest
    config: DevilConfig
    frames: int
    size: tuple[int, int]

    @property
    def weights(self) -> int:
        return loaded_weights(self.manifest)

    @cached_property
    def frame(self) -> tuple[int, int]:
        """(height, width) that the detector sees."""
        return self.manifest.frame_size or detector_size(*self.size, self.config.detector)

    @cached_property
    def tokens(self) -> int:
        """Visual tokens of one frame."""
        side = self.config.vision.side
        height, width = vision_size(*self.size, self.frames, self.config)
        return height * width // side**2

    @property
    def slots(self) -> int:
        """Of the KV cache: the prompt tells a time before every frame, and one sentence is asked and answered."""
        prompt = self.frames * (self.tokens + 12) + self.config.max_new_tokens + CACHE_STEP
        return min(-(-prompt // CACHE_STEP) * CACHE_STEP, self.config.language.context)

    @property
    def cache(self) -> int:
        """Twice: growing copies it, and a step may hold the part that is attended to."""
        language = self.config.language
        per_slot = 2 * language.layers * language.kv_heads * language.head_dim
        return 2 * self.slots * per_slot * _BYTES[self.manifest.graph_precision("language")]

    @property
    def video(self) -> int:
        """Frames and patches as bytes, visual tokens, and the detector's features of every frame."""
        config, (height, width) = self.config, self.frame
        pixels = 3 * height * width + 3 * self.tokens * config.vision.side**2
        features = sum(rows * columns for rows, columns in level_shapes(height, width)) * config.detector.hidden
        return self.frames * (2 * pixels + 4 * self.tokens * config.language.hidden + 4 * features)

    @property
    def activations(self) -> dict[str, int]:
        parts = (self._vision, self._language, self._backbone, self._grounder)
        return dict(zip(GRAPHS, parts, strict=True))

    @property
    def _vision(self) -> int:
        """Scores of attention, for the most part; the pixels become floats too."""
        vision, patches = self.config.vision, self.tokens * self.config.vision.merge**2
        batch = min(max(1, BATCH_PATCHES // patches), self.frames)
        per_patch = 2 * 3 * vision.patch**2 + 10 * vision.hidden + 3 * vision.mlp + 2 * vision.heads * patches
        return 4 * batch * patches * per_patch

    @property
    def _language(self) -> int:
        language, rows = self.config.language, min(CHUNK, self.slots)
        scores = min(SCORE_BYTES, 4 * language.heads * rows * self.slots)
        return 3 * scores + 4 * rows * (10 * language.hidden + 3 * language.mlp) + 4 * 32 * language.vocab

    @property
    def _batch(self) -> int:
        """Detector frames of one run."""
        height, width = self.frame
        return min(max(1, BATCH_PIXELS // (height * width)), self.frames)

    @property
    def _backbone(self) -> int:
        """Its first stage, a sixteenth of the pixels, is the widest; the pixels themselves become floats too."""
        height, width = self.frame
        swin = self.config.detector.backbone
        per_token = 16 * swin.embed + 4 * 3 * swin.patch**2 + 3 * swin.heads[0] * swin.window**2
        return 4 * self._batch * height * width // swin.patch**2 * per_token

    @property
    def _grounder(self) -> int:
        """An encoder layer; without our library deformable attention holds what it samples of one level, before and
        after its weights, and a few copies of where all levels are sampled."""
        detector = self.config.detector
        length = sum(rows * columns for rows, columns in level_shapes(*self.frame))
        sampled = 2 * detector.hidden * detector.points + 8 * detector.heads * detector.levels * detector.points
        per_position = 10 * detector.hidden + 2 * detector.ffn + sampled
        return 4 * self._batch * length * per_position
