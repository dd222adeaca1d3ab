"""What weight-only quantisation does to which weights of the language model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from devil.config import LanguageConfig
from devil.contract import BundlePrecision
from devil.errors import ConfigError

Bits = Literal[4, 8, 16]  # 16: not quantised, the graph's own floating type
BlockSize = Literal[32, 64, 128]

_BITS: dict[BundlePrecision, Bits] = {"int8": 8, "int4": 4}

HEAD = "lm_head"
EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True)
class Scheme:
    """How the language model's weights are quantised: symmetric integers with one scale per block.

    Attributes:
        bits: of the decoder's linear layers.
        block: successive inputs of one output that share a scale.
        embedding_bits: of the token embedding.
        head_bits: of the readout to logits.
        exceptions: linear layers with bits of their own, by name.
    """

    bits: Bits
    block: BlockSize = 64
    embedding_bits: Bits = 16
    head_bits: Bits = 16
    exceptions: tuple[tuple[str, Bits], ...] = ()

    @classmethod
    def of(
        cls,
        precision: BundlePrecision,
        block: BlockSize | None = None,
        embedding_bits: Bits | None = None,
        head_bits: Bits | None = None,
    ) -> Scheme | None:
        """The scheme of a precision, where nothing else is said the default one; None where weights stay floats."""
        if precision not in _BITS:
            return None
        bits = _BITS[precision]
        return cls(bits, block or cls.block, embedding_bits or bits, head_bits or bits)

    def bits_of(self, key: str) -> Bits:
        """Bits of the linear layer `key`."""
        return dict(self.exceptions).get(key, self.head_bits if key == HEAD else self.bits)

    def check(self, key: str, inputs: int) -> None:
        """
        Raises:
            ConfigError: the blocks do not fit a layer with so many inputs.
        """
        if inputs % self.block:
            smaller = [str(size) for size in (64, 32) if size < self.block and inputs % size == 0]
            mend = f"use --block-size {smaller[0]}" if smaller else "keep this language model in fp16"
            raise ConfigError(f"blocks of {self.block} do not divide the {inputs} inputs of {key}", mend)

    def check_model(self, config: LanguageConfig) -> None:
        """
        Raises:
            ConfigError: the blocks do not fit a layer of the model.
        """
        self.check("the layers that read the hidden state", config.hidden)
        self.check("o_proj", config.heads * config.head_dim)
        self.check("down_proj", config.mlp)

    def record(self, search: str) -> dict[str, Any]:
        """What the manifest says."""
        weights = {name: value for name, value in asdict(self).items() if name != "exceptions" or value}
        return {"weights": weights, "symmetric": True, "axis": "inputs", "scales": search}
