"""The plan's terms against what a process really takes: differences of peaks, each large enough to falsify its term."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from devil.bundle import FileRecord, Manifest
from devil.config import LanguageConfig
from devil.contract import GRAPHS
from devil.export.language import build_language
from devil.export.onnx_file import save_model
from devil.runtime.memory_plan import plan
from tests.qwen2 import devil_config

LANGUAGE = LanguageConfig(hidden=512, layers=4, heads=8, kv_heads=8, mlp=512, vocab=20000, context=4096)
SHORT = 512

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

_MEASURE = """
import json, re, sys
import numpy as np, onnxruntime
from devil.config import DevilConfig, LanguageConfig
from devil.contract import contract
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.language import LanguageSession
from pathlib import Path

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10

path, language, lengths = json.loads(sys.argv[1])
config = DevilConfig(language=LanguageConfig(**language))
peaks = [peak()]
runner = OnnxRuntimeEngine(threads=1).load(Path(path), contract(config)["language"], "fp32")
peaks.append(peak())
for length in lengths:
    LanguageSession(runner, config).prefill([1] * length, np.zeros((0, config.language.hidden), np.float32))
    peaks.append(peak())
print(json.dumps(peaks))
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(bytes of the graph's files, growth by loading them, growth from a short cache to a long one)"""
    random = np.random.default_rng(0)
    shapes = _shapes()

    def weight(key):
        return random.standard_normal(shapes[key], np.float32)

    folder = tmp_path_factory.mktemp("language")
    path, _ = save_model(build_language(LANGUAGE, weight, "fp32"), folder / "language.onnx")
    room = devil_config(LANGUAGE).max_new_tokens + 128  # the default answer's
    request = json.dumps([str(path), dataclasses.asdict(LANGUAGE), [SHORT - room, LANGUAGE.context - room]])
    done = subprocess.run([sys.executable, "-c", _MEASURE, request], capture_output=True, text=True, check=True)
    before, loaded, short, long = json.loads(done.stdout)
    return sum(file.stat().st_size for file in folder.iterdir()), loaded - before, long - short


def _shapes():
    width, kv, mlp = LANGUAGE.hidden, LANGUAGE.kv_heads * LANGUAGE.head_dim, LANGUAGE.mlp
    shapes = {"model.embed_tokens.weight": (LANGUAGE.vocab, width), "lm_head.weight": (LANGUAGE.vocab, width)}
    shapes["model.norm.weight"] = (width,)
    for layer in range(LANGUAGE.layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.input_layernorm.weight": (width,), f"{at}.post_attention_layernorm.weight": (width,)}
        for name, rows in (("q", width), ("k", kv), ("v", kv)):
            shapes |= {f"{at}.self_attn.{name}_proj.weight": (rows, width), f"{at}.self_attn.{name}_proj.bias": (rows,)}
        shapes[f"{at}.self_attn.o_proj.weight"] = (width, width)
        shapes |= {f"{at}.mlp.{name}_proj.weight": (mlp, width) for name in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (width, mlp)
    return shapes


def planned(context, language_bytes):
    files = {f"{graph}.onnx": FileRecord(language_bytes if graph == "language" else 0, "") for graph in GRAPHS}
    files["tokenizer.json"] = FileRecord(9, "")
    config = devil_config(dataclasses.replace(LANGUAGE, context=context))
    return plan(Manifest("model", "fp32", config, files), config)


def test_weights_take_what_is_planned_for_them(measured):
    size, growth, _ = measured
    assert size > 80e6
    weights = planned(SHORT, size).weights
    assert 0.8 * weights < growth < weights + 20e6  # the session itself, beside its weights


def test_a_longer_cache_takes_no_more_than_is_planned_and_not_much_less(measured):
    size, _, growth = measured
    short, long = (planned(context, size) for context in (SHORT, LANGUAGE.context))
    allowed = long.total - short.total
    assert long.cache - short.cache > 90e6
    assert allowed / 3 < growth < allowed
