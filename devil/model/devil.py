"""The whole model: Qwen2 with the vision tower, the projector and the detector hanging in it.

Module names give the checkpoint's keys (reference §7): `model.vision_encoder.vision_encoder.*`,
`model.mm_projector.readout.*`, `model.g_dino.*`, and Qwen2's own.
"""

from __future__ import annotations

from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from devil.config import DevilConfig, LanguageConfig
from devil.model.detector.detector import Detector
from devil.model.vision import Projector, VisionTower


def qwen2_config(config: LanguageConfig) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=config.vocab,
        hidden_size=config.hidden,
        intermediate_size=config.mlp,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        rms_norm_eps=config.eps,
        max_position_embeddings=config.context,
        tie_word_embeddings=config.tied,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
    )


class DevilModel(Qwen2ForCausalLM):
    """DEViL in PyTorch.

    Attributes:
        devil: the DevilConfig it was built from (`config` is transformers' own).
    """

    def __init__(self, config: DevilConfig):
        super().__init__(qwen2_config(config.language))
        self.devil = config
        self.model.vision_encoder = VisionTower(config.vision)
        self.model.mm_projector = Projector(config.vision.hidden, config.language.hidden)
        self.model.g_dino = Detector(config.detector, config.language.hidden)

    @property
    def detector(self) -> Detector:
        return self.model.g_dino

    def visual_tokens(self, patches: Tensor, positions: Tensor) -> Tensor:
        """uint8 patches [F, P, 3·patch²] and positions [P, 2] to visual tokens [F, P / merge², language hidden]."""
        return self.model.mm_projector(self.model.vision_encoder(patches, positions))

    def embed(self, token_ids: Tensor, visual_table: Tensor) -> Tensor:
        """Input embeddings [..., hidden] of token ids; id `vocab + i` is row i of `visual_table` [V, hidden]."""
        vocab = self.devil.language.vocab
        is_text = token_ids < vocab
        text = self.model.embed_tokens(token_ids.clamp(max=vocab - 1))
        visual = visual_table[(token_ids - vocab).clamp(min=0)]
        return text.where(is_text.unsqueeze(-1), visual)
