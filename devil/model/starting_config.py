"""The DEViL config and tokenizer that go with published weights as a start of training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devil.config import DetectorConfig, DevilConfig
from devil.config_json import MODEL_TYPE, from_hf, read_json
from devil.errors import CheckpointError
from devil.model.checkpoint import TOKENIZER
from devil.prompt import BOX, IMAGE, QUERY_END, QUERY_START, TURN_END

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# In the order of the released model's ids; what a tokenizer has already keeps its id.
_ADDED = (IMAGE, "<|stream_start|>", "<|stream_end|>", QUERY_START, QUERY_END, BOX)
_TOKENS = {
    "image_token_index": IMAGE, "tbox_index": BOX, "query_start_index": QUERY_START, "query_end_index": QUERY_END,
    "eos_token_id": TURN_END,
}  # fmt: skip


def starting_config(
    base: Path, vision: Path | None, detector: DetectorConfig | None, tokenizer: Tokenizer
) -> DevilConfig:
    """The config of a model that begins from published weights.

    Args:
        base: folder of the language model, and of the vision encoder where `vision` is None.
        vision: folder of a vision encoder alone.
        detector: its sizes; by default those of the base, or the published ones.
        tokenizer: of `starting_tokenizer`.

    Raises:
        CheckpointError: a config.json is missing or broken, no folder describes a vision encoder, or the base has fewer
            embeddings than there are tokens.
        ConfigError: the sizes contradict each other.
    """
    values = read_json(base / "config.json")
    text = values.get("text_config") or values
    tied = values.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    config = from_hf(
        text
        | {token: tokenizer.token_to_id(text) for token, text in _TOKENS.items()}
        | {
            "model_type": MODEL_TYPE,
            "tie_word_embeddings": tied,
            "vision_encoder_config": _vision_values(values, base, vision),
            "detector_config": dataclasses.asdict(detector) if detector else values.get("detector_config"),
        }
    )
    rows, needed = config.language.vocab, tokenizer.get_vocab_size()
    if needed > rows:
        raise CheckpointError(
            f"{base} has {rows} embeddings for {needed} tokens, with DEViL's",
            "resize its embeddings with transformers' resize_token_embeddings",
        )
    return config


def starting_tokenizer(base: Path) -> Tokenizer:
    """The base's tokenizer with DEViL's tokens.

    Raises:
        CheckpointError: it has no readable tokenizer.json, or is no ChatML model's.
    """
    from tokenizers import AddedToken, Tokenizer

    path = base / TOKENIZER
    if not path.is_file():
        raise CheckpointError(f"{base} lacks {TOKENIZER}", "save it with transformers' fast tokenizer of that model")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for every kind of bad file
        raise CheckpointError(f"{path} cannot be read ({error})", "copy the checkpoint again") from error
    if tokenizer.token_to_id(TURN_END) is None:
        raise CheckpointError(f"{path} lacks the token {TURN_END}", "name a folder of a Qwen2.5 chat model")
    added = [token for token in _ADDED if tokenizer.token_to_id(token) is None]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    return tokenizer


def _vision_values(values: dict[str, Any], base: Path, vision: Path | None) -> dict[str, Any]:
    found = values.get("vision_encoder_config") or values.get("vision_config")
    if vision is not None:
        found = read_json(vision / "config.json")
    if not found:
        raise CheckpointError(f"{base} describes no vision encoder", "name the folder of one with --vision")
    preprocessor = (vision or base) / "preprocessor_config.json"
    normalisation = read_json(preprocessor) if preprocessor.exists() else {}
    return found | {key: normalisation[key] for key in ("image_mean", "image_std") if key in normalisation}
