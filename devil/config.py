"""What a DEViL model is made of: frozen configs and presets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from devil.errors import ConfigError

RstPosition = Literal["predict", "input"]


@dataclass(frozen=True)
class VisionConfig:
    """SigLIP-NaViT vision encoder followed by the two-layer projector (reference §2.5)."""

    hidden: int = 1152
    layers: int = 27
    heads: int = 16
    mlp: int = 4304
    patch: int = 14
    merge: int = 2  # merge × merge patches become one visual token
    eps: float = 1e-6
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def side(self) -> int:
        """Pixels per side of one visual token."""
        return self.patch * self.merge


@dataclass(frozen=True)
class LanguageConfig:
    """Qwen2 language model."""

    hidden: int = 3584
    layers: int = 28
    heads: int = 28
    kv_heads: int = 4
    mlp: int = 18944
    vocab: int = 152064
    eps: float = 1e-6
    rope_theta: float = 1e6
    context: int = 32768
    tied: bool = False  # lm_head shares the embedding's weights

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


@dataclass(frozen=True)
class SwinConfig:
    """Swin transformer; the last three of its stages feed the detector."""

    embed: int = 128
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 12
    mlp_ratio: int = 4
    patch: int = 4

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the three stages that are used (strides 8, 16, 32)."""
        return tuple(self.embed * 2**stage for stage in range(len(self.depths)))[-3:]


@dataclass(frozen=True)
class DetectorConfig:
    """Grounding DINO with one text token and query decay (reference §3)."""

    backbone: SwinConfig = SwinConfig()
    hidden: int = 256
    heads: int = 8
    levels: int = 4
    points: int = 4
    encoder_layers: int = 6
    decoder_layers: int = 6
    ffn: int = 2048
    queries: int = 900
    query_decay: float = 0.5
    position_temperature: float = 20.0
    min_side: int = 360  # pixels of a frame's shorter side
    max_side: int = 1333  # the longer side never exceeds this; extreme shapes are squeezed
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def text_heads(self) -> int:
        """Heads of the fusion and of the text self-attention."""
        return self.heads // 2

    @property
    def fusion_hidden(self) -> int:
        """Width of the fusion attention, and of the text layer's feed-forward."""
        return self.ffn // 2

    @property
    def kept_queries(self) -> tuple[int, ...]:
        """Queries alive after each decoder layer; the last is Q'."""
        kept, count = [], self.queries
        for _ in range(self.decoder_layers):
            count = math.ceil(count * self.query_decay)
            kept.append(count)
        return tuple(kept)


@dataclass(frozen=True)
class TokenConfig:
    """Ids of the tokens that carry meaning."""

    image: int = 151665
    box: int = 151670
    query_start: int = 151668
    query_end: int = 151669
    end: int = 151645  # <|im_end|> stops decoding


@dataclass(frozen=True)
class DevilConfig:
    """A whole DEViL model.

    Raises:
        ConfigError: sizes that do not divide, or frames too small for the detector's queries.
    """

    vision: VisionConfig = VisionConfig()
    language: LanguageConfig = LanguageConfig()
    detector: DetectorConfig = DetectorConfig()
    tokens: TokenConfig = TokenConfig()
    frames: int = 64  # frames sampled from a clip
    max_tokens: int = 16384  # visual tokens of all frames together
    max_new_tokens: int = 128
    compress_tokens: bool = True  # drop visual tokens that repeat the previous frame
    rst_position: RstPosition = "predict"

    def __post_init__(self) -> None:
        detector, language, vision = self.detector, self.language, self.vision
        divisions = [
            ("vision.hidden", vision.hidden, "4 × vision.heads", 4 * vision.heads),
            ("language.hidden", language.hidden, "language.heads", language.heads),
            ("language.heads", language.heads, "language.kv_heads", language.kv_heads),
            ("detector.hidden", detector.hidden, "8 × detector.heads", 8 * detector.heads),
            ("detector.hidden", detector.hidden, "32 groups", 32),
        ]
        for name, value, by, divisor in divisions:
            if value % divisor:
                raise ConfigError(f"{name} = {value} is not divisible by {by} = {divisor}")
        if detector.levels != len(detector.backbone.channels) + 1:
            raise ConfigError(f"detector.levels = {detector.levels} does not fit a Swin that yields 3 levels + 1")
        smallest = sum(h * w for h, w in level_shapes(detector.min_side, detector.min_side))
        if smallest < detector.queries:
            raise ConfigError(
                f"frames of {detector.min_side} pixels give {smallest} proposals for {detector.queries} queries",
                "raise detector.min_side or lower detector.queries",
            )
        if self.rst_position not in ("predict", "input"):
            raise ConfigError(f"rst_position is {self.rst_position!r}", "use 'predict' or 'input'")


def level_shapes(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """(height, width) of the detector's four feature levels (strides 8, 16, 32, 64) for a frame of that size."""
    shapes = []
    height, width = -(-height // 4), -(-width // 4)  # patch embedding pads to multiples of 4
    for _ in range(4):
        height, width = -(-height // 2), -(-width // 2)
        shapes.append((height, width))
    return tuple(shapes)


PRESETS: dict[str, DevilConfig] = {
    "7b": DevilConfig(),
    "tiny": DevilConfig(
        vision=VisionConfig(hidden=128, layers=3, heads=4, mlp=512),
        language=LanguageConfig(hidden=256, layers=4, heads=4, kv_heads=2, mlp=512, vocab=656, context=4096),
        detector=DetectorConfig(
            backbone=SwinConfig(embed=32, depths=(1, 2, 2, 1), heads=(1, 2, 4, 8), window=4),
            hidden=128, heads=8, encoder_layers=2, decoder_layers=3, ffn=512, queries=64, min_side=96, max_side=512,
        ),
        tokens=TokenConfig(image=636, box=641, query_start=639, query_end=640, end=635),
        frames=16,
        max_tokens=320,
        max_new_tokens=32,
        compress_tokens=False,  # a still shape would leave the prompt: a small model needs to see it in every frame
    ),
}  # fmt: skip
