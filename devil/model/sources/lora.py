"""LoRA adapters merged into their base weights, one weight at a time (arXiv 2106.09685; PEFT's files and numbers)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from devil.errors import CheckpointError
from devil.model.sources.base import COPY_AGAIN, Entry, WeightSource
from devil.model.sources.finite import all_finite

MARK = ".lora_"  # in every key of an adapter, and in no other

_HALF = re.compile(r"^(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<half>[AB])(?:\.default)?(?:\.weight)?$")
_PIECE = 1 << 24  # values of a weight that are merged at a time
_MERGE_FIRST = "merge it with PEFT's merge_and_unload, and save the whole model"
_RIGHT_BASE = "name the base that it was trained on"

# What PEFT's LoRA can also be, and is then no plain sum.
_VARIANTS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "alora_invocation_tokens", "arrow_config", "kasa_config",
    "velora_config", "monteclora_config", "layer_replication", "megatron_config", "target_parameters",
    "trainable_token_indices", "ensure_weight_tying",
)  # fmt: skip
_PLAIN_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")  # others also change the base's weights


@dataclass(frozen=True)
class LoraScaling:
    """How strong each adapter is, as `adapter_config.json` tells it."""

    alpha: float
    is_rank_stabilised: bool  # arXiv 2312.03732
    alphas: Mapping[str, float]  # by a pattern that the end of a module's name matches

    @classmethod
    def of(cls, config: dict[str, Any], what: object) -> LoraScaling:
        """
        Args:
            what: the folder, for the message.

        Raises:
            CheckpointError: it is no LoRA, or one of a kind that is not known.
        """
        if config.get("peft_type") != "LORA":
            raise CheckpointError(f"the adapter of {what} is {config.get('peft_type')}, not LORA", _MERGE_FIRST)
        variants = [name for name in _VARIANTS if config.get(name)]
        if config.get("init_lora_weights", True) not in _PLAIN_BEGINNINGS:
            variants.append(f"init_lora_weights {config['init_lora_weights']}")
        if variants:
            raise CheckpointError(f"the adapter of {what} uses {', '.join(variants)}", _MERGE_FIRST)
        try:
            alphas = {name: float(alpha) for name, alpha in (config.get("alpha_pattern") or {}).items()}
            return cls(float(config["lora_alpha"]), bool(config.get("use_rslora")), alphas)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"adapter_config.json of {what} is broken ({error!r})", COPY_AGAIN) from error

    def factor(self, module: str, rank: int) -> float:
        matching = (alpha for pattern, alpha in self.alphas.items() if re.match(rf"(.*\.)?({pattern})$", module))
        return next(matching, self.alpha) / (math.sqrt(rank) if self.is_rank_stabilised else rank)


class MergedLora:
    """A base with adapters folded in: W + factor · B A, in the base's own type, as PEFT's merge leaves it.

    Embeddings are stored transposed to that, and adapted so.

    Args:
        base: weights by the names that the adapter's modules have.
        adapter: holds keys with MARK: A [rank, inputs] and B [outputs, rank] of each module.
        scaling: of the adapter's config.
        what: the adapter's folder, for messages.

    Raises:
        CheckpointError: the adapter has half a pair, or does not fit the base.
    """

    def __init__(self, base: WeightSource, adapter: WeightSource, scaling: LoraScaling, what: Path):
        self._base, self._adapter, self._scaling = base, adapter, scaling
        self._pairs = _pairs(adapter, what)
        for key, pair in self._pairs.items():
            _check(key, pair, base, what)
        computed = {key: Entry(base.entries[key].shape, base.entries[key].dtype) for key in self._pairs}
        self.entries: Mapping[str, Entry] = dict(base.entries) | computed

    def read(self, key: str) -> Tensor:
        weight = self._base.read(key)
        if key not in self._pairs:
            return weight
        pair = self._pairs[key]
        down, up = (self._adapter.read(half).float() for half in (pair.down, pair.up))
        factor = self._scaling.factor(key.removesuffix(".weight"), pair.rank)
        merged = weight.clone()
        _add(merged.T if pair.is_embedding else merged, down, up, factor)
        if not all_finite(merged):
            raise CheckpointError(f"{key} with its adapter goes beyond {merged.dtype}", "save the base as bfloat16")
        return merged


@dataclass(frozen=True)
class _Pair:
    down: str  # key of A
    up: str  # key of B
    shapes: tuple[tuple[int, ...], tuple[int, ...]]  # of A and B
    is_embedding: bool

    @property
    def rank(self) -> int:
        return self.shapes[0][0]


def _pairs(adapter: WeightSource, what: Path) -> dict[str, _Pair]:
    """Pairs by the weight that they adapt."""
    halves: dict[str, dict[str, str]] = {}
    embeddings, unknown = set(), []
    for key in adapter.entries:
        match = _HALF.match(key)
        if match is None:
            unknown.append(key)
            continue
        weight = f"{match['module']}.weight"
        halves.setdefault(weight, {})[match["half"]] = key
        if match["embedding"]:
            embeddings.add(weight)
    unknown += [key for pair in halves.values() if len(pair) < 2 for key in pair.values()]
    if unknown:
        raise CheckpointError(f"the adapter of {what} has {min(unknown)}, which is no half of a pair", _MERGE_FIRST)
    entries = adapter.entries
    return {
        weight: _Pair(pair["A"], pair["B"], (entries[pair["A"]].shape, entries[pair["B"]].shape), weight in embeddings)
        for weight, pair in halves.items()
    }


def _check(key: str, pair: _Pair, base: WeightSource, what: Path) -> None:
    if key not in base.entries:
        raise CheckpointError(f"the adapter of {what} is for another base: this one has no {key}", _RIGHT_BASE)
    shape, (down, up) = base.entries[key].shape, pair.shapes
    is_pair = len(down) == len(up) == 2 and down[0] == up[1]
    if not is_pair or (up[0], down[1]) != (shape[::-1] if pair.is_embedding else shape):
        raise CheckpointError(
            f"the adapter of {what} is for another base: A {down} and B {up} do not fit {key} {shape}", _RIGHT_BASE
        )


def _add(weight: Tensor, down: Tensor, up: Tensor, factor: float) -> None:
    """weight [outputs, inputs] += factor · up [outputs, rank] @ down [rank, inputs], some rows at a time."""
    rows = max(1, _PIECE // weight.shape[1])
    for start in range(0, weight.shape[0], rows):
        weight[start : start + rows] += (up[start : start + rows] @ down) * factor
