"""What a DEViL model is made of: frozen configs, presets, and the Hugging Face `config.json` they come from."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from devil.errors import CheckpointError, ConfigError

MODEL_TYPE = "devil_qwen2"
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


# Our field ↔ key of config.json. A released folder has the Qwen2 keys at the top level.
_LANGUAGE_KEYS = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "mlp": "intermediate_size", "vocab": "vocab_size", "eps": "rms_norm_eps",
    "rope_theta": "rope_theta", "context": "max_position_embeddings", "tied": "tie_word_embeddings",
}  # fmt: skip
_VISION_KEYS = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "mlp": "intermediate_size",
    "patch": "patch_size", "eps": "layer_norm_eps",
}  # fmt: skip
_TOKEN_KEYS = {
    "image": "image_token_index", "box": "tbox_index", "query_start": "query_start_index",
    "query_end": "query_end_index", "end": "eos_token_id",
}  # fmt: skip
_TOP_KEYS = {
    "frames": "max_frames", "max_tokens": "max_tokens", "max_new_tokens": "max_new_tokens",
    "compress_tokens": "use_token_compression", "rst_position": "rst_position",
}  # fmt: skip


def to_hf(config: DevilConfig) -> dict[str, Any]:
    """The content of a checkpoint folder's `config.json`."""
    vision = _renamed(config.vision, _VISION_KEYS) | {
        "model_type": "videollama3_vision_encoder",
        "spatial_merge_size": config.vision.merge,
        "image_mean": list(config.vision.mean),
        "image_std": list(config.vision.std),
    }
    return {
        "architectures": ["DevilQwen2ForCausalLM"],
        "model_type": MODEL_TYPE,
        "hidden_act": "silu",
        "mm_projector_type": "mlp2x_gelu",
        **_renamed(config.language, _LANGUAGE_KEYS),
        **_renamed(config.tokens, _TOKEN_KEYS),
        **_renamed(config, _TOP_KEYS),
        "vision_encoder_config": vision,
        "detector_config": dataclasses.asdict(config.detector),
    }


def from_hf(values: dict[str, Any]) -> DevilConfig:
    """The config that a `config.json` describes; fields it lacks take the published 7B values.

    Raises:
        CheckpointError: the file is of another model type, or a needed field is missing.
        ConfigError: the sizes contradict each other.
    """
    if values.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"config.json has model_type {values.get('model_type')!r}, not {MODEL_TYPE!r}",
            "point --model at a DEViL folder",
        )
    projector = values.get("mm_projector_type", "mlp2x_gelu")
    if projector != "mlp2x_gelu":
        raise CheckpointError(f"config.json asks for projector {projector!r}; only mlp2x_gelu is known")
    needed = ("hidden_size", "num_hidden_layers", "vocab_size", *_TOKEN_KEYS.values())
    missing = [key for key in needed if key not in values]
    if missing:
        raise CheckpointError(f"config.json lacks {', '.join(missing)}", "use the file that came with the weights")
    default = PRESETS["7b"]
    vision_values = dict(values.get("vision_encoder_config") or {})
    preprocessor = {"mean": "image_mean", "std": "image_std", "merge": "spatial_merge_size"}
    vision = _picked(VisionConfig, _VISION_KEYS | preprocessor, vision_values)
    rope = values.get("rope_theta") or (values.get("rope_parameters") or {}).get("rope_theta")
    language = _picked(LanguageConfig, _LANGUAGE_KEYS, values | ({"rope_theta": rope} if rope else {}))
    detector_values = dict(values.get("detector_config") or {})
    backbone = SwinConfig(**_tuples(detector_values.pop("backbone", {})))
    detector = DetectorConfig(backbone=backbone, **_tuples(detector_values))
    end = values["eos_token_id"]
    tokens = _picked(TokenConfig, _TOKEN_KEYS, values | {"eos_token_id": end[0] if isinstance(end, list) else end})
    top = {field: values[key] for field, key in _TOP_KEYS.items() if values.get(key) is not None}
    return dataclasses.replace(default, vision=vision, language=language, detector=detector, tokens=tokens, **top)


def load_config(folder: str | os.PathLike) -> DevilConfig:
    """Reads `config.json` (and `preprocessor_config.json`, where present, for mean and std) of a checkpoint folder.

    Raises:
        CheckpointError: no readable `config.json` there, or not DEViL's.
    """
    folder = Path(folder)
    values = _read_json(folder / "config.json")
    preprocessor = folder / "preprocessor_config.json"
    if preprocessor.exists():
        found = {key: value for key, value in _read_json(preprocessor).items() if key in ("image_mean", "image_std")}
        values["vision_encoder_config"] = dict(values.get("vision_encoder_config") or {}) | found
    return from_hf(values)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist", "name a folder that holds a DEViL checkpoint") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error})", "copy the checkpoint again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is not a JSON object", "copy the checkpoint again")
    return values


def _renamed(config: Any, keys: dict[str, str]) -> dict[str, Any]:
    return {key: getattr(config, field) for field, key in keys.items()}


def _picked(kind: type, keys: dict[str, str], values: dict[str, Any]) -> Any:
    found = {field: values[key] for field, key in keys.items() if values.get(key) is not None}
    return kind(**_tuples(found))


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where frozen configs have tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
