"""A language model of 0.5 billion random weights in the forms that are compared: our graphs, transformers,
onnxruntime-genai.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM

from devil.contract import contract
from devil.export.language import build_language
from devil.export.onnx_file import save_model
from devil.export.scheme import Scheme
from devil.files import atomic_directory
from devil.model.random_checkpoint import SIZES, RandomCheckpointOptions, write_random_checkpoint
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeRunner

CONFIG = SIZES["0.5b"]
BLOCK = 64
FORMS: dict[str, Scheme | None] = {"fp32": None, "int8": Scheme(8, BLOCK, 8, 8), "int4": Scheme(4, BLOCK, 4, 4)}
_LANGUAGE = ("model.embed_tokens.", "model.layers.", "model.norm.")


def write_checkpoint(folder: Path) -> None:
    """`folder`/checkpoint, and `folder`/qwen with the language model alone as transformers and others read it."""
    if not (folder / "checkpoint").exists():
        write_random_checkpoint(RandomCheckpointOptions(folder / "checkpoint", "0.5b", dtype="float32"))
    if not (folder / "qwen").exists():
        with atomic_directory(folder / "qwen") as qwen:
            _write_qwen(folder / "checkpoint", qwen)


def _write_qwen(checkpoint: Path, qwen: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights = {key: value for key, value in weights.items() if key.startswith(_LANGUAGE)}
    save_file(weights, qwen / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(checkpoint / "tokenizer.json", qwen / "tokenizer.json")
    (qwen / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    config = Qwen2Config(
        vocab_size=CONFIG.language.vocab, hidden_size=CONFIG.language.hidden,
        num_hidden_layers=CONFIG.language.layers, num_attention_heads=CONFIG.language.heads,
        num_key_value_heads=CONFIG.language.kv_heads, intermediate_size=CONFIG.language.mlp,
        rms_norm_eps=CONFIG.language.eps, rope_theta=CONFIG.language.rope_theta,
        max_position_embeddings=CONFIG.language.context, tie_word_embeddings=CONFIG.language.tied,
        bos_token_id=0, eos_token_id=CONFIG.tokens.end,
    )  # fmt: skip
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(qwen)


def language_graph(folder: Path, form: str) -> OnnxRuntimeRunner:
    """Our graph in a form, with float32 activations, on one thread."""
    path = folder / f"language-{form}.onnx"
    if not path.exists():
        with safe_open(folder / "checkpoint" / "model.safetensors", "pt") as weights:
            save_model(build_language(CONFIG.language, weights.get_tensor, "fp32", FORMS[form]), path)
    return OnnxRuntimeEngine(threads=1).load(path, contract(CONFIG)["language"], "fp32")


class Reference:
    """transformers' Qwen2 in float32, with its own default attention and cache."""

    def __init__(self, folder: Path, context: int = 512):
        self.model = Qwen2ForCausalLM.from_pretrained(folder / "qwen", dtype=torch.float32).eval()
        self._ids = torch.full((1, context), 5)
        self.prefill()

    @torch.no_grad()
    def prefill(self) -> None:
        """From nothing to the logits behind the context."""
        self._cache = DynamicCache(config=self.model.config)
        self.model(self._ids, past_key_values=self._cache, logits_to_keep=1)

    @torch.no_grad()
    def decode(self) -> None:
        """One token behind the context."""
        self.model(torch.tensor([[7]]), past_key_values=self._cache)
        self._cache.crop(-1)


class Genai:
    """onnxruntime-genai's own int4 export of the same weights."""

    def __init__(self, folder: Path, context: int):
        import onnxruntime_genai

        model = onnxruntime_genai.Model(str(folder))
        options = onnxruntime_genai.GeneratorParams(model)
        options.set_search_options(max_length=4 * context, min_length=4 * context, do_sample=False)
        self._generator = onnxruntime_genai.Generator(model, options)
        self._generator.append_tokens(np.full((1, context), 5, np.int32))
        self._generator.generate_next_token()

    @classmethod
    def of(cls, folder: Path, context: int) -> Genai | None:
        """None where the package is not installed."""
        if importlib.util.find_spec("onnxruntime_genai") is None:
            return None
        out = folder / "genai-int4"
        if not out.exists():
            cls._build(folder, out)
        _limit_threads(out / "genai_config.json")
        return cls(out, context)

    @staticmethod
    def _build(folder: Path, out: Path) -> None:
        with atomic_directory(out) as written:
            command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "int4", "-e", "cpu"]
            paths = ["-m", str(folder / "qwen"), "-o", str(written), "-c", str(folder / "genai-cache")]
            form = [f"int4_block_size={BLOCK}", "int4_accuracy_level=4"]
            subprocess.run([*command, *paths, "--extra_options", *form], check=True, capture_output=True)

    def decode(self) -> None:
        """The next token; its context is a few dozen tokens longer than ours at the end."""
        self._generator.generate_next_token()


def _limit_threads(path: Path) -> None:
    values: dict[str, Any] = json.loads(path.read_text())
    values["model"]["decoder"]["session_options"] |= {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    path.write_text(json.dumps(values))
