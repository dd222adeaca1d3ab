"""Weights that stay floats to the engine and are bytes in the file."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from devil.bundle import open_bundle
from devil.calibration.in_bytes import OP_TYPE, StoreInBytes, bytes_and_scales, storable
from devil.calibration.kept import LARGEST_GROWTH
from devil.calibration.parts import quantised_part
from devil.calibration.rules import chosen_by_rule
from devil.calibration.sessions import open_session
from devil.errors import CalibrationError
from devil.export.tensorrt.build import build_engines
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.target import choose
from tests.calibration.graphs import Build

SHAPES = {"patches": [1, 3, 32, 32], "x": [64, 48]}


def plain(dtype=np.float32):
    """A convolution, both forms of Gemm, products with constants on either side, attention with a table, positions."""
    random = np.random.default_rng(0)

    def weight(*shape):
        return random.normal(size=shape).astype(dtype)

    kind = ir.DataType.FLOAT if dtype == np.float32 else ir.DataType.FLOAT16
    build = Build(**SHAPES)
    pixels = build.op("Cast", build["patches"], to=kind, dtype=kind)
    seen = build.op("Conv", pixels, build.constant("kernel", weight(16, 3, 8, 8)), dtype=kind)
    x = build.op("Cast", build["x"], to=kind, dtype=kind)
    first = build.op("Gemm", x, build.constant("gemm_t", weight(64, 48)), transB=1, dtype=kind)  # [64, 64]
    second = build.op("Gemm", first, build.constant("gemm", weight(64, 64)), dtype=kind)
    right = build.op("MatMul", second, build.constant("right", weight(2, 64, 64)), dtype=kind)  # [2, 64, 64]
    left = build.op("MatMul", build.constant("left", weight(2, 32, 64)), right, dtype=kind)  # [2, 32, 64]
    scores = build.op("Add", left, build.constant("table", weight(2, 32, 64)), dtype=kind)
    attention = build.op("Softmax", scores, axis=-1, dtype=kind)
    placed = build.op("Add", right, build.constant("positions", weight(64, 64)), dtype=kind)
    small = build.linear(placed, weight(64, 16), name="small") if dtype == np.float32 else placed
    return build.model(seen, attention, small)


FEEDS = {
    "patches": np.random.default_rng(1).integers(0, 256, SHAPES["patches"], np.uint8),
    "x": np.random.default_rng(2).normal(size=SHAPES["x"]).astype(np.float32),
}


def ran(model, folder):
    """Outputs, and how often each kernel ran."""
    session = open_session(model, folder, 1, profile=folder / "profile")
    outputs = session.run(None, FEEDS)
    events = json.loads(Path(session.end_profiling()).read_text())
    return outputs, Counter(event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time"))


def test_codes_and_scales_by_hand():
    codes, scales = bytes_and_scales("w", np.array([[1, -2, 0.5], [0, 0, 0], [254, 127, -254]], np.float32), (1,))
    np.testing.assert_allclose(scales, [[2 / 127], [1], [2]])
    np.testing.assert_array_equal(codes, [[128 + 64, 1, 128 + 32], [128, 128, 128], [255, 128 + 64, 1]])


def test_a_weight_that_is_no_number_is_named():
    with pytest.raises(CalibrationError, match="w has values that are no numbers"):
        bytes_and_scales("w", np.array([[1, np.nan]], np.float32), (1,))


def test_what_is_storable_and_along_which_axes():
    assert storable(plain()) == {
        "kernel": (1, 2, 3), "gemm_t": (1,), "gemm": (0,), "right": (1,), "left": (2,), "table": (2,),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_engines_compute_with_the_rounded_weights_and_nothing_more(dtype, tmp_path):
    """Against the same graph with the rounded weights as floats: the same numbers from the same kernels."""
    stored, rounded = plain(dtype), plain(dtype)
    names = storable(stored)
    StoreInBytes(names)(stored)
    for name, axes in names.items():
        value = rounded.graph.initializers[name]
        codes, scales = bytes_and_scales(name, value.const_value.numpy(), axes)
        floats = (codes.astype(np.float32) - 128) * scales.astype(np.float32)
        value.const_value = ir.tensor(floats.astype(dtype), name=name)
    (found, kernels), (expected, others) = ran(stored, tmp_path), ran(rounded, tmp_path)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert kernels == others
    assert Counter(node.op_type for node in stored.graph)[OP_TYPE] == len(names)
    assert not storable(stored)


def test_only_what_was_named_is_stored():
    model = plain()
    StoreInBytes(["gemm"])(model)
    kinds = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert kinds["gemm"] == ir.DataType.UINT8
    assert kinds["kernel"] == kinds["right"] == ir.DataType.FLOAT


def test_kept_weights_are_bytes_within_the_graphs_error(graphs, parts):
    """Of the grounder, whose text side and offsets stay floats."""
    graph = graphs["grounder"]
    chosen = chosen_by_rule(graph.layers, "int8")
    floats = quantised_part(graph, chosen, "mse", {}, "by rule", 16)
    stored = parts["grounder"]
    assert floats.record["kept_weights"] == {"bytes": [], "stored": 0, "floats": {}}
    assert {"text", "offsets"} <= set(stored.record["kept_weights"]["bytes"])
    assert stored.error <= LARGEST_GROWTH * floats.error
    in_bytes = [value for value in stored.model.graph.initializers.values() if value.dtype == ir.DataType.UINT8]
    assert stored.record["kept_weights"]["stored"] == sum(value.const_value.nbytes for value in in_bytes) > 0
    sizes = [
        sum(value.const_value.nbytes for value in part.model.graph.initializers.values()) for part in (stored, floats)
    ]
    assert sizes[0] < 0.6 * sizes[1]  # 0.48: of fp32, where half of the weights had stayed


def test_weights_stay_floats_where_that_shows(graphs, monkeypatch):
    monkeypatch.setattr("devil.calibration.kept.LARGEST_GROWTH", 0.0)
    graph = graphs["vision"]
    record = quantised_part(graph, chosen_by_rule(graph.layers, "int8"), "mse", {}, "by rule").record["kept_weights"]
    assert record["bytes"] == []
    assert set(record["floats"]) == {"first"}  # the last layers of this small model have too few weights to gain
    assert all(error > 0 for error in record["floats"].values())


@pytest.mark.tensorrt
def test_tensorrt_builds_a_graph_with_weights_in_bytes(calibrated, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    shutil.copytree(calibrated, tmp_path / "int8")
    bundle = open_bundle(tmp_path / "int8")
    stored = [node for node in ir.load(bundle.path("grounder")).graph if node.op_type == OP_TYPE]
    options = EngineOptions(backend="tensorrt-rtx", target=("sm89",), graphs=("grounder",))
    (engine,) = build_engines(bundle, options, choose(options)).engines
    layers = engine.engine.built["layers"]
    assert layers["CAST"] >= len(stored) > 4  # the parser expands the function; the builder folds it
    assert layers["DEQUANTIZE"] == 2 * layers["QUANTIZE"]  # no other weight is one for integer kernels
