"""What the plan counts for weights against what loading them takes: peaks of anonymous memory, a process each."""

import json
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest
import torch

from devil.bundle import FileRecord, Manifest
from devil.calibration.in_bytes import StoreInBytes, storable
from devil.config import PRESETS, LanguageConfig
from devil.contract import GRAPHS
from devil.export.language import build_language
from devil.export.onnx_file import save_model
from devil.export.scheme import Scheme
from devil.runtime.weight_memory import loaded_weights

LANGUAGE = LanguageConfig(hidden=1024, layers=4, heads=8, kv_heads=8, mlp=4096, vocab=16000, context=512)
WIDTH = 2048

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

_MEASURE = """
import re, sys, threading
from pathlib import Path
import onnxruntime
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

seen, done = [anonymous()], threading.Event()
def watch():
    while not done.wait(0.002):
        seen.append(anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
session = OnnxRuntimeEngine(threads=1)._session(onnxruntime, sys.argv[1])
done.set()
watcher.join()
print(max(seen) - seen[0])
"""


def loading(path):
    """(bytes of the graph's files, anonymous memory that loading it takes at most)"""
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], capture_output=True, text=True, check=True)
    return sum(file.stat().st_size for file in path.parent.iterdir()), json.loads(done.stdout)


def planned(graph, size, record, precision="fp32"):
    files = {f"{name}.onnx": FileRecord(size if name == graph else 0, "") for name in GRAPHS}
    files["tokenizer.json"] = FileRecord(9, "")
    manifest = Manifest(
        "model", "mixed", PRESETS["tiny"], files,
        graph_precisions=dict.fromkeys(GRAPHS, precision), quantisation={graph: record} if record else {},
    )  # fmt: skip
    return loaded_weights(manifest)


@pytest.mark.parametrize(("precision", "bits"), [("fp32", 4), ("fp16", 8)])
def test_integers_of_the_language_model(tmp_path, precision, bits):
    base = torch.randn(1 << 20).mul_(0.02)

    def weight(key):
        shape = _shape(key)
        return base.repeat(-(-int(np.prod(shape)) // len(base)))[: int(np.prod(shape))].reshape(shape)

    def quick(_key, rows, bits, block, scale_type, _first=0):
        top = 2 ** (bits - 1) - 1
        codes = (rows * (top / 0.1)).round().clamp(-top, top).to(torch.int8)
        return codes, torch.full((len(rows), rows.shape[1] // block), 0.1 / top, dtype=scale_type)

    scheme = Scheme(bits, embedding_bits=bits, head_bits=bits)
    path, _ = save_model(build_language(LANGUAGE, weight, precision, scheme, quick), tmp_path / "language.onnx")
    size, taken = loading(path)
    assert size > 50e6
    allowed = planned("language", size, scheme.record("any"), precision)
    assert 0.6 * allowed < taken < allowed + 10e6  # the session itself, beside its weights


@pytest.mark.parametrize("stored", [False, True])
def test_weights_in_bytes_and_in_floats(tmp_path, stored):
    weights = np.random.default_rng(0).standard_normal((3, WIDTH, WIDTH), np.float32)
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", WIDTH]))
    value, nodes, constants = x, [], []
    for number, weight in enumerate(weights):
        tensor = ir.tensor(weight, name=f"weight{number}")
        constants.append(ir.Value(name=tensor.name, type=x.type, shape=tensor.shape, const_value=tensor))
        nodes.append(ir.node("MatMul", [value, constants[-1]], name=f"product{number}"))
        value = nodes[-1].outputs[0]
        value.name, value.type, value.shape = f"out{number}", x.type, x.shape
    graph = ir.Graph([x], [value], nodes=nodes, initializers=constants, opset_imports={"": 20}, name="backbone")
    model = ir.Model(graph, ir_version=10)
    if stored:
        StoreInBytes(storable(model))(model)
    path, _ = save_model(model, tmp_path / "backbone.onnx")
    size, taken = loading(path)
    record = {"forms": {"int8": 1}, "kept_weights": {"stored": weights.size}} if stored else None
    allowed = planned("backbone", size, record)
    assert 0.6 * allowed < taken < allowed + 10e6


def _shape(key):
    width, mlp, vocab = LANGUAGE.hidden, LANGUAGE.mlp, LANGUAGE.vocab
    kind = key.split(".")[-2] if not key.startswith(("lm_head", "model.embed")) else "table"
    sizes = {"table": (vocab, width), "gate_proj": (mlp, width), "up_proj": (mlp, width), "down_proj": (width, mlp)}
    if key.endswith("bias") or "norm" in kind:
        return (width,)
    return sizes.get(kind, (width, width))
