"""Names that published models give the weights of DEViL's parts, by the `model_type` of their config.json."""

from __future__ import annotations

from collections.abc import Callable

from devil.model.detector.published import own_name

Rename = Callable[[str], str | None]

_CRITERION = "model.criterion."
_DETECTOR = "model.g_dino."
_VISION = "model.vision_encoder."
_ENCODER = "model.vision_encoder.vision_encoder."

# transformers' VideoLLaMA3 → ours.
_PREFIXES = {
    "model.language_model.": "model.",
    "model.vision_model.": _ENCODER,
    "model.projector.": "model.mm_projector.",
}


def devil_key(key: str) -> str | None:
    """DEViL's own folders: leaves out what only training needs, and gives the box head's copies one name."""
    if key.startswith(_CRITERION):
        return None
    if key.startswith(_DETECTOR):
        name = own_name(key.removeprefix(_DETECTOR))
        return None if name is None else _DETECTOR + name
    return key


def videollama3_key(key: str) -> str:
    """VideoLLaMA3 as its authors save it: the published folders lack a level of the vision encoder's names."""
    if key.startswith(_VISION) and not key.startswith(_ENCODER):
        return _ENCODER + key.removeprefix(_VISION)
    return key


def transformers_videollama3_key(key: str) -> str:
    """VideoLLaMA3 as transformers saves it."""
    for prefix, ours in _PREFIXES.items():
        if key.startswith(prefix):
            return ours + key.removeprefix(prefix)
    return key


def vision_key(key: str) -> str:
    """A vision encoder alone, as VL3-SigLIP-NaViT is published."""
    return _ENCODER + key


LAYOUTS: dict[str, Rename] = {
    "devil_qwen2": devil_key,
    "videollama3_qwen2": videollama3_key,
    "video_llama_3": transformers_videollama3_key,
    "videollama3_vision_encoder": vision_key,
    "video_llama_3_vision": vision_key,
    "qwen2": lambda key: key,
}
