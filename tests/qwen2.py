"""Random Qwen2 language models: the transformers reference, and the same weights as our language graph."""

import copy
import functools

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from devil.config import DevilConfig, LanguageConfig, TokenConfig
from devil.contract import contract
from devil.export.language import build_language
from devil.export.onnx_file import save_model
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine

CONFIGS = {
    "head_dim 8": LanguageConfig(hidden=48, layers=2, heads=6, kv_heads=2, mlp=80, vocab=101, context=512),
    "head_dim 16, tied": LanguageConfig(
        hidden=48, layers=3, heads=3, kv_heads=1, mlp=67, vocab=97, context=512, tied=True
    ),
    "head_dim 64": LanguageConfig(
        hidden=128, layers=2, heads=2, kv_heads=2, mlp=96, vocab=211, context=512, eps=1e-5, rope_theta=1e4
    ),
}  # fmt: skip


def devil_config(language, **changes):
    """A DEViL config around `language` whose end token is never likely: id 0, unless changed."""
    return DevilConfig(language=language, **{"tokens": TokenConfig(end=0, box=1), "max_new_tokens": 32} | changes)


@functools.cache
def reference(config, seed=0):
    """transformers' Qwen2 with random weights, large enough that logits differ by units and biases matter."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=config.vocab, hidden_size=config.hidden, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, num_key_value_heads=config.kv_heads, intermediate_size=config.mlp,
            rms_norm_eps=config.eps, rope_parameters={"rope_theta": config.rope_theta, "rope_type": "default"},
            max_position_embeddings=config.context, tie_word_embeddings=config.tied, attn_implementation="eager",
            bos_token_id=None, eos_token_id=0, pad_token_id=None,
        )
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.15)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def build(config, precision="fp32"):
    weights = reference(config).state_dict()
    return build_language(config, lambda key: weights[key].numpy(), precision)


def language_runner(folder, config, precision="fp32"):
    """The reference's weights as a language graph, loaded into ONNX Runtime."""
    path, _ = save_model(build(config, precision), folder / f"language-{precision}.onnx")
    spec = contract(DevilConfig(language=config))["language"]
    return OnnxRuntimeEngine(threads=1).load(path, spec, precision)


def causal_feeds(token_ids, starts, lengths):
    """The language graph's index inputs for rows that continue at different slots with different numbers of tokens.

    Args:
        token_ids: int64 [B, S], padded on the right.
        starts: int64 [B], slots already filled in each row.
        lengths: int64 [B], tokens of each row that count; its last one is read out.

    Padding writes to slots behind its row, where no token looks before a later step has overwritten them.
    """
    columns = np.arange(token_ids.shape[1])
    positions = starts[:, None] + columns  # [B, S]
    slots = np.arange(positions.max() + 1)
    return {
        "token_ids": token_ids,
        "positions": positions,
        "write_index": starts,
        "mask": (slots <= positions[:, :, None])[:, None],
        "output_index": lengths[:, None] - 1,
    }


def prompt(config, length, visual_rows, seed=0):
    """Ids of which a stretch stands for the rows of a visual table, and that table."""
    random = np.random.default_rng(seed)
    ids = random.integers(2, config.vocab, length)
    ids[3 : 3 + visual_rows] = config.vocab + np.arange(visual_rows)
    return ids, random.normal(size=(visual_rows, config.hidden)).astype(np.float32)


@torch.no_grad()
def expected(config, ids, table, dtype=torch.float32):
    """The reference's logits [S, vocab] and final-norm hidden states [S, hidden], without a cache, as float32."""
    model = reference(config)
    if dtype != torch.float32:
        model = copy.deepcopy(model).to(dtype)
    weights = torch.cat([model.get_input_embeddings().weight, torch.from_numpy(table).to(dtype)])
    output = model.model(inputs_embeds=weights[torch.from_numpy(np.asarray(ids))][None])
    hidden = output.last_hidden_state[0]
    return model.lm_head(hidden).float().numpy(), hidden.float().numpy()
