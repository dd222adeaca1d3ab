"""The language side of training: packed questions through the model, their cross-entropy, and what attention sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

from devil.model.devil import DevilModel
from devil.training.packing import Packed, block_mask


@dataclass(frozen=True)
class LanguageOutput:
    """What one pass over a batch of packed clips gives.

    Attributes:
        logits: [R, vocab] at the batch's `read` places.
        hidden: [B, S, hidden], final-norm.
        layers: the input of every decoder layer, [B, S, hidden] each.
        positions: [B, S], as the layers saw them.
    """

    logits: Tensor
    hidden: Tensor
    layers: tuple[Tensor, ...]
    positions: Tensor


def language_pass(
    model: DevilModel, batch: Packed, visual_table: Tensor, change: Tensor | None = None
) -> LanguageOutput:
    """Runs a collated batch; `visual_table` [V, hidden] holds the visual tokens of all its clips.

    `change` [B, S, hidden] is added to the embeddings, if given.

    A batch of one question per clip and no padding is plainly causal, so any attention kernel will do.
    """
    device = visual_table.device
    positions = torch.from_numpy(batch.positions).to(device)
    embedded = model.embed(torch.from_numpy(batch.token_ids).to(device), visual_table)
    if change is not None:
        embedded = embedded + change
    mask = None
    if batch.segments.min() < 0 or batch.segments.max() > 1:
        allowed = torch.from_numpy(block_mask(batch.segments)).to(device)[:, None]
        mask = torch.zeros(allowed.shape, dtype=embedded.dtype, device=device)
        mask.masked_fill_(~allowed, torch.finfo(embedded.dtype).min)
    out = model.model(
        inputs_embeds=embedded,
        attention_mask=mask,
        position_ids=positions,
        output_hidden_states=True,
        use_cache=False,
    )
    read = torch.from_numpy(batch.read).to(device)
    logits = model.lm_head(out.last_hidden_state.flatten(0, 1)[read])
    return LanguageOutput(logits, out.last_hidden_state, tuple(out.hidden_states[:-1]), positions)


def answer_loss(output: LanguageOutput, batch: Packed) -> Tensor:
    """Cross-entropy of the answers, per answer token."""
    return F.cross_entropy(output.logits.float(), torch.from_numpy(batch.targets).to(output.logits.device))


def answer_accuracy(output: LanguageOutput, batch: Packed, answer_length: int) -> np.ndarray:
    """bool [Q, answer_length]: which answer tokens are the likeliest ones, for answers of one length."""
    right = output.logits.argmax(-1).cpu().numpy() == batch.targets
    return right.reshape(-1, answer_length)


def attention_rows(model: DevilModel, output: LanguageOutput, batch: Packed, layer: int, rows: Tensor) -> Tensor:
    """The attention of a few places, recomputed from a layer's input, so that the pass itself may use any kernel.

    Args:
        layer: which decoder layer.
        rows: int64 [B, R], places in each clip's sequence.

    Returns:
        log-probabilities [B, heads, R, S].
    """
    block = model.model.layers[layer]
    attention = block.self_attn
    x = block.input_layernorm(output.layers[layer])
    clips, length, _ = x.shape
    chosen = rows[:, :, None].expand(-1, -1, x.shape[2])
    cos, sin = model.model.rotary_emb(x, output.positions)
    key = attention.k_proj(x).view(clips, length, -1, attention.head_dim).transpose(1, 2)
    query = attention.q_proj(x.gather(1, chosen)).view(clips, rows.shape[1], -1, attention.head_dim).transpose(1, 2)
    key = apply_rotary_pos_emb(key, key, cos, sin)[0]
    angles = rows[:, :, None].expand(-1, -1, cos.shape[2])
    query = apply_rotary_pos_emb(query, query, cos.gather(1, angles), sin.gather(1, angles))[0]
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query @ key.transpose(2, 3) * attention.scaling  # [B, heads, R, S]
    seen = (
        torch.from_numpy(block_mask(batch.segments)).to(rows.device).gather(1, rows[..., None].expand(-1, -1, length))
    )
    return scores.masked_fill(~seen[:, None], torch.finfo(scores.dtype).min).log_softmax(-1)


def attention_loss(log_probabilities: Tensor, wanted: Tensor) -> Tensor:
    """−log of the attention mass on the wanted keys.

    Args:
        log_probabilities: [B, heads, R, S], every head is held to it.
        wanted: bool [B, R, S]; rows that want nothing are left out.
    """
    mass = log_probabilities.masked_fill(~wanted[:, None], -1e4).logsumexp(-1)  # [B, heads, R]
    asked = wanted.any(-1)[:, None].expand_as(mass)
    return -(mass * asked).sum() / asked.sum().clamp(min=1)
