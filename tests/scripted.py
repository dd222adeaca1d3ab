"""A small model that says one sentence whatever it is asked, while its hidden states still depend on what it sees."""

import dataclasses
import itertools
from pathlib import Path

import torch

from devil.model.checkpoint import save_model
from devil.model.devil import DevilModel
from devil.prompt import PromptWriter
from tests.tiny import tiny_model, tiny_tokenizer

ANSWER = "It happens from 0.4 to 1.0 seconds. [BOX]"


def scripted_model(tokenizer: Path, answer: str = ANSWER, rst_position: str = "predict") -> DevilModel:
    """The small random model with other words: the output layer reads token i of the answer out of token i − 1.

    Attention and feed-forward layers still add to the hidden states, so the RST differs between videos and sentences.
    """
    tiny_tokenizer().save(str(tokenizer))
    model = tiny_model()
    model.devil = dataclasses.replace(model.devil, rst_position=rst_position)
    writer = PromptWriter(tokenizer, model.devil)
    chain = [writer.instruction("x")[-1], *writer.answer(answer)]
    assert len(set(chain)) == len(chain), "a scripted answer cannot say a token twice"
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= 4
            layer.mlp.down_proj.weight *= 2
        embeddings = torch.nn.functional.normalize(torch.randn_like(model.model.embed_tokens.weight), dim=1)
        model.model.embed_tokens.weight.copy_(embeddings)
        model.lm_head.weight.zero_()
        for before, after in itertools.pairwise(chain):
            model.lm_head.weight[after] = 4 * embeddings[before]
    return model


def scripted_checkpoint(folder: Path, answer: str = ANSWER, rst_position: str = "predict") -> Path:
    """Writes the model as `folder`/scripted and returns that."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer.json"
    model = scripted_model(tokenizer, answer, rst_position)
    save_model(model, folder / "scripted", tokenizer, torch.float32)
    tokenizer.unlink()
    return folder / "scripted"
