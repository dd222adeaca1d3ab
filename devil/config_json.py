"""The Hugging Face `config.json` of a checkpoint folder, to and from a `DevilConfig` (reference §7)."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from devil.config import PRESETS, DetectorConfig, DevilConfig, LanguageConfig, SwinConfig, TokenConfig, VisionConfig
from devil.errors import CheckpointError

MODEL_TYPE = "devil_qwen2"

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
        CheckpointError: the file is of another model type, or a field is missing, unknown or of another kind.
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
    try:
        return _parsed(values)
    except (TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"config.json is broken ({error})", "use the file that came with the weights") from error


def load_config(folder: str | os.PathLike) -> DevilConfig:
    """Reads `config.json` (and `preprocessor_config.json`, where present, for mean and std) of a checkpoint folder.

    Raises:
        CheckpointError: no readable `config.json` there, or not DEViL's.
    """
    folder = Path(folder)
    values = read_json(folder / "config.json")
    preprocessor = folder / "preprocessor_config.json"
    if preprocessor.exists():
        found = {key: value for key, value in read_json(preprocessor).items() if key in ("image_mean", "image_std")}
        values["vision_encoder_config"] = dict(values.get("vision_encoder_config") or {}) | found
    return from_hf(values)


def _parsed(values: dict[str, Any]) -> DevilConfig:
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


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a checkpoint's file.

    Raises:
        CheckpointError: it is absent, or no JSON object.
    """
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
