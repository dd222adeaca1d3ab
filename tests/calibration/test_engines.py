"""What engines make of calibrated graphs: integer kernels, rounding that the numeric gate lets through, TensorRT."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from devil.bundle import open_bundle
from devil.calibration.sessions import open_session
from devil.contract import contract
from devil.errors import EngineError
from devil.export.tensorrt.build import build_engines
from devil.export.tensorrt.options import EngineOptions
from devil.export.tensorrt.target import choose
from devil.fidelity import compare_detections, compare_tensors, over_budget
from devil.runtime.engines.gate import budget_of
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from tests.calibration.conftest import QUANTISED


def feeds_of(recording, graph):
    return next(iter(recording.captures.runs(graph))).feeds


@pytest.mark.parametrize("graph", QUANTISED)
def test_every_chosen_layer_runs_on_an_integer_kernel(recording, calibrated, graph, tmp_path):
    """By ONNX Runtime's own profile of the bundle's graph."""
    bundle = open_bundle(calibrated)
    model = ir.load(bundle.path(graph))
    rounded = [
        node for node in model.graph
        if node.op_type == "MatMul" and all(
            value.producer() is not None and value.producer().op_type == "DequantizeLinear" for value in node.inputs
        )
    ]  # fmt: skip
    session = open_session(model, bundle.folder, 1, profile=tmp_path / "profile")
    session.run(None, feeds_of(recording, graph))
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = Counter(event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time"))
    assert ran["MatMulIntegerToFloat"] == len(rounded) > 0


@pytest.mark.parametrize("graph", QUANTISED)
def test_the_numeric_gate_lets_another_engines_rounding_through(recording, calibrated, graph):
    """Integer kernels against the same graph node by node in floats, which is what the gate compares engines with."""
    bundle, feeds = open_bundle(calibrated), feeds_of(recording, graph)
    spec, precision = contract(bundle.config)[graph], bundle.manifest.graph_precision(graph)
    found, expected = (
        OnnxRuntimeEngine(threads=1, lean=lean).load(bundle.path(graph), spec, precision).run(feeds)
        for lean in (False, True)
    )
    compare = compare_detections if graph == "grounder" else lambda *both: compare_tensors(*(o[name] for o in both))
    (name, *_) = expected
    measures = compare(found, expected)
    assert over_budget(measures, budget_of(bundle, graph)) == []
    assert budget_of(recording.bundle, graph) == "fp32"


@pytest.mark.tensorrt
def test_tensorrt_builds_a_calibrated_graph_and_refuses_what_a_gpu_cannot_compute(calibrated, tmp_path):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    shutil.copytree(calibrated, tmp_path / "int8")
    bundle = open_bundle(tmp_path / "int8")
    options = EngineOptions(backend="tensorrt-rtx", target=("sm89",), graphs=("vision",))
    (engine,) = build_engines(bundle, options, choose(options)).engines
    layers, forms = engine.engine.built["layers"], bundle.manifest.quantisation["vision"]["forms"]
    assert layers["DEQUANTIZE"] == 2 * layers["QUANTIZE"]  # every activation and every weight
    assert 0 < layers["QUANTIZE"] <= forms["int8"]  # layers that take the same activation are one

    quantisation = {"vision": {**bundle.manifest.quantisation["vision"], "forms": {"fp8": 3}}}
    eight = replace(bundle, manifest=replace(bundle.manifest, quantisation=quantisation))
    older = replace(options, target=("sm86",))
    with pytest.raises(EngineError, match="sm86 has no 8-bit floats, which graph vision needs"):
        build_engines(eight, older, choose(older))
