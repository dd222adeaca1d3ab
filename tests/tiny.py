"""A small random DEViL: config, tokenizer, model and checkpoint folder, the same for the same seed."""

import functools
from pathlib import Path

import torch

from devil.bundle import FileRecord, Manifest, write_manifest
from devil.config import (
    PRESETS,
    DetectorConfig,
    DevilConfig,
    LanguageConfig,
    SwinConfig,
    TokenConfig,
    VisionConfig,
)
from devil.contract import GRAPHS
from devil.model.checkpoint import save_model
from devil.model.devil import DevilModel
from devil.prompt import BOX, IMAGE, QUERY_END, QUERY_START, TURN_END
from devil.training.tokenizer import train_tokenizer


@functools.cache
def tiny_tokenizer():
    return train_tokenizer(["the red circle while it moves left", "a blue square that appears at the top"])


def tiny_config() -> DevilConfig:
    """Every part as small as it can be with all its kinds of layers: shifted windows, query decay, shared KV heads."""
    ids = tiny_tokenizer().token_to_id
    return DevilConfig(
        vision=VisionConfig(hidden=32, layers=2, heads=2, mlp=48, mean=(0.4, 0.5, 0.6), std=(0.3, 0.5, 0.7)),
        language=LanguageConfig(
            hidden=32, layers=2, heads=4, kv_heads=2, mlp=48, vocab=tiny_tokenizer().get_vocab_size(), context=2048
        ),
        detector=DetectorConfig(
            backbone=SwinConfig(embed=16, depths=(1, 1, 2, 1), heads=(1, 2, 4, 8), window=4),
            hidden=64, heads=4, encoder_layers=1, decoder_layers=2, ffn=64, queries=16, min_side=64, max_side=256,
        ),
        tokens=TokenConfig(
            image=ids(IMAGE), box=ids(BOX), query_start=ids(QUERY_START), query_end=ids(QUERY_END), end=ids(TURN_END)
        ),
        frames=8,
        max_tokens=64,
        max_new_tokens=8,
    )  # fmt: skip


def tiny_model(seed: int = 0) -> DevilModel:
    """Random weights in evaluation mode; box heads, which start at zero, are random too."""
    torch.manual_seed(seed)
    model = DevilModel(tiny_config()).eval()
    with torch.no_grad():
        for name, parameter in model.detector.named_parameters():
            if "bbox_embed" in name:
                parameter.normal_(0, 0.1)
    return model


def tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Writes the model as the checkpoint folder `folder`/tiny and returns that."""
    tokenizer = folder / "tokenizer.json"
    tiny_tokenizer().save(str(tokenizer))
    save_model(tiny_model(seed), folder / "tiny", tokenizer, torch.float32)
    tokenizer.unlink()
    return folder / "tiny"


def traced_alike(builder, model: DevilModel):
    """A GraphBuilder of `model` with the graphs that `builder` traced: vision and detector must not differ."""
    graphs = type(builder)(model)
    graphs._traced = builder._traced
    return graphs


def write_listed_files(folder):
    """A folder that looks like a bundle until one of its graphs is read."""
    folder.mkdir(parents=True)
    names = [*(f"{graph}.onnx" for graph in GRAPHS), "tokenizer.json"]
    for name in names:
        (folder / name).write_text(name)
    files = {name: FileRecord.of(folder / name) for name in names}
    write_manifest(folder, Manifest("tiny", "fp32", PRESETS["tiny"], files))
