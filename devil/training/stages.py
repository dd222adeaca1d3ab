"""What each of the three stages trains (reference §5), whole or through LoRA."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from devil.errors import MissingPackageError
from devil.model.devil import DevilModel

Stage = Literal[1, 2, 3]
BATCH: dict[Stage, int] = {1: 128, 2: 128, 3: 32}
DETECTS: dict[Stage, bool] = {1: True, 2: False, 3: True}
_ADAPTED = r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"


def add_lora(model: DevilModel, rank: int) -> nn.Module:
    """Puts adapters (α = 2 · rank) on the language model's projections, in place.

    Returns:
        PEFT's view of the model; `merge_and_unload()` folds the adapters into the weights again.

    Raises:
        MissingPackageError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise MissingPackageError("peft", "training with LoRA", "train") from None
    return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_ADAPTED))


def parameter_groups(
    model: DevilModel, stage: Stage, detector_rate: float, language_rate: float, has_lora: bool, vision: bool
) -> list[dict[str, Any]]:
    """AdamW groups of a stage; every other parameter is frozen.

    Args:
        has_lora: train the adapters only, not the language model's own weights.
        vision: also train the vision encoder, at the language model's rate.
    """
    language, detector = [], []
    for name, parameter in model.named_parameters():
        if name.startswith("model.g_dino."):
            detector.append(parameter)
        elif name.startswith("model.vision_encoder."):
            language += [parameter] if vision else []
        elif name.startswith("model.mm_projector.") or "lora_" in name or not has_lora:
            language.append(parameter)
    groups = [{"params": language, "lr": language_rate}]
    return groups + ([{"params": detector, "lr": detector_rate}] if DETECTS[stage] else [])
