"""Published Grounding DINO weights as a start for DEViL's detector: the original file, or transformers' folder."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from devil.config import DetectorConfig, SwinConfig
from devil.errors import CheckpointError
from devil.model.detector.published import own_name
from devil.model.detector.transformers_layout import renamed
from devil.model.sources.base import Entry, WeightSource
from devil.model.sources.renamed import Renamed
from devil.model.sources.stacked import Stacked

# The text side that the one text token replaces, and what only denoising training uses.
_DROPPED = re.compile(r"^(?:bert|feat_map|label_enc)\.")


def from_original(source: WeightSource) -> WeightSource:
    """By the detector's own names, the weights of a published `.pth`."""
    return Renamed(source, _original_name)


def from_transformers(source: WeightSource) -> WeightSource:
    """By the detector's own names, the weights of a folder with `model_type` grounding-dino."""

    def own(key: str) -> str | None:
        name = renamed(key)
        return None if name is None else own_name(name)

    return Stacked(Renamed(source, own))


def detector_config(entries: Mapping[str, Entry], what: Path, values: Mapping[str, Any]) -> DetectorConfig:
    """The sizes of a detector, read off its weights.

    Args:
        entries: by the detector's own names.
        what: its path, for messages.
        values: transformers' config.json, where there is one: weights do not tell the number of heads.

    Raises:
        CheckpointError: the weights are no Grounding DINO's.
    """
    try:
        levels, hidden = entries["transformer.level_embed"].shape
        heads = values.get("encoder_attention_heads", DetectorConfig.heads)
        offsets = entries["transformer.encoder.layers.0.self_attn.sampling_offsets.weight"].shape[0]
        return DetectorConfig(
            backbone=_swin_config(entries),
            hidden=hidden,
            heads=heads,
            levels=levels,
            points=offsets // (2 * heads * levels),
            encoder_layers=_count(entries, r"transformer\.encoder\.layers\.(\d+)\."),
            decoder_layers=_count(entries, r"transformer\.decoder\.layers\.(\d+)\."),
            ffn=entries["transformer.encoder.layers.0.linear1.weight"].shape[0],
            queries=entries["transformer.tgt_embed.weight"].shape[0],
        )
    except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{what} holds no Grounding DINO ({error})", "name its .pth file or its folder"
        ) from error


def _swin_config(entries: Mapping[str, Entry]) -> SwinConfig:
    tables = [
        entries[f"backbone.0.layers.{stage}.blocks.0.attn.relative_position_bias_table"].shape
        for stage in range(_count(entries, r"backbone\.0\.layers\.(\d+)\."))
    ]
    embed, _, patch, _ = entries["backbone.0.patch_embed.proj.weight"].shape
    return SwinConfig(
        embed=embed,
        depths=tuple(
            _count(entries, rf"backbone\.0\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(len(tables))
        ),
        heads=tuple(heads for _, heads in tables),
        window=(math.isqrt(tables[0][0]) + 1) // 2,  # the table has (2 · window - 1)² rows
        mlp_ratio=entries["backbone.0.layers.0.blocks.0.mlp.fc1.weight"].shape[0] // embed,
        patch=patch,
    )


def _count(entries: Mapping[str, Entry], pattern: str) -> int:
    return 1 + max((int(match[1]) for key in entries if (match := re.match(pattern, key))), default=-1)


def _original_name(key: str) -> str | None:
    key = key.removeprefix("module.")  # as distributed training saves it
    return None if _DROPPED.match(key) else own_name(key)
