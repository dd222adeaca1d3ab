"""Layers as the engines' own profilers tell them."""

import json
from types import SimpleNamespace

import pytest

from devil.errors import EngineError
from devil.plugins import library
from devil.runtime.profile import layers_tensorrt
from devil.runtime.profile.layers import by_kind
from devil.runtime.profile.layers_onnxruntime import parse


def event(name, start, length, kind=None, types=("float",)):
    details = {"op_name": kind, "output_type_shape": [{one: [1]} for one in types]} if kind else {}
    return {"cat": "Node" if kind else "Session", "name": name, "ts": start, "dur": length, "args": details}


@pytest.fixture
def profile(tmp_path):
    """A warm-up and three runs of two layers; the second takes 20, 90 and 30 µs."""
    events = [event("session_initialization", 0, 50)]
    for index, second in enumerate((5000, 20, 90, 30)):
        start = 100 + 10_000 * index
        events += [
            event("a_kernel_time", start + 1, 10, "MatMul"),
            event("a_fence_before", start + 1, 7, "MatMul"),
            event("b_kernel_time", start + 20, second, "Cast", ("float16", "float")),
            event("model_run", start, 5500),
        ]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(events))
    return path


def test_layers_take_the_median_of_the_last_runs(profile):
    found = {layer.name: layer for layer in parse(profile, 3)}
    assert {name: layer.seconds for name, layer in found.items()} == {
        "a": pytest.approx(10e-6),
        "b": pytest.approx(30e-6),
    }
    assert (found["b"].kind, found["b"].types) == ("Cast", "float, float16")


def test_a_profile_with_fewer_runs_is_refused(profile, tmp_path):
    with pytest.raises(EngineError, match="holds 4 runs, not 5"):
        parse(profile, 5)
    (tmp_path / "half.json").write_text("[{")
    with pytest.raises(EngineError, match="cannot be read"):
        parse(tmp_path / "half.json", 1)


def test_kinds_are_sums_the_slowest_first():
    rows = [{"kind": kind, "seconds": seconds} for kind, seconds in (("Add", 1.0), ("MatMul", 2.0), ("Add", 1.5))]
    assert by_kind(rows) == [
        {"kind": "Add", "layers": 2, "seconds": 2.5},
        {"kind": "MatMul", "layers": 1, "seconds": 2.0},
    ]


def test_a_real_graph_tells_its_layers(contender):
    decode = {layer["kind"] for layer in contender.layers("decode", 2)}
    assert {"Attention", "TensorScatter"} <= decode
    grounder = contender.layers("grounder", 2)
    assert grounder == sorted(grounder, key=lambda layer: -layer["seconds"])
    sampling = "MultiScaleDeformableAttention" if library() else "GridSample"
    assert sampling in {layer["kind"] for layer in grounder}


class FakeContext:
    """An execution context whose runs take what `times` says, in milliseconds, and report it as TensorRT does."""

    def __init__(self, engine):
        self.engine, self.profiler = engine, None

    def run(self, times):
        for name, milliseconds in times:
            if self.profiler is not None:
                self.profiler.report_layer_time(name, milliseconds)


@pytest.fixture
def runner():
    """A loaded graph of two profiles on a TensorRT that tells about three layers."""
    layers = [
        {"Name": "conv", "LayerType": "CaskConvolution", "Outputs": [{"Name": "t", "Format/Datatype": "Half"}]},
        {"Name": "attention", "LayerType": "Attention", "Outputs": []},
        "a layer without details",
    ]
    text = json.dumps({"Layers": layers, "Bindings": []})
    engine = SimpleNamespace(
        create_engine_inspector=lambda: SimpleNamespace(
            get_engine_information=lambda kind: text if kind == "json" else ""
        )
    )
    trt = SimpleNamespace(
        IProfiler=type("IProfiler", (), {}), LayerInformationFormat=SimpleNamespace(JSON="json"), engine=engine
    )
    contexts = [FakeContext(engine), FakeContext(engine)]
    return SimpleNamespace(
        api=SimpleNamespace(trt=trt, backend="tensorrt"),
        profiles=(1, 2),
        contexts=SimpleNamespace(of=contexts.__getitem__),
    )


def test_tensorrts_layers_have_the_inspectors_kinds_and_the_profilers_medians(runner):
    second = iter([9.0, 1.0, 3.0, 2.0])  # milliseconds; the first run warms up

    def run():
        runner.contexts.of(1).run(
            [("conv [profile 1]", next(second)), ("attention", 4.0), ("attention", 1.0), ("?", 0.5)]
        )

    found = {layer.name: layer for layer in layers_tensorrt.trace(runner, run, 3)}
    conv = found["conv [profile 1]"]
    assert (conv.kind, conv.types, conv.seconds) == ("CaskConvolution", "Half", pytest.approx(2e-3))
    assert (found["attention"].kind, found["attention"].seconds) == ("Attention", pytest.approx(5e-3))
    assert found["?"].kind == "?"
    assert runner.contexts.of(0).profiler is runner.contexts.of(1).profiler is None


def test_a_tensorrt_that_reports_nothing_is_refused_and_not_left_with_a_profiler(runner):
    with pytest.raises(EngineError, match="reports no layer's time"):
        layers_tensorrt.trace(runner, lambda: None, 1)
    assert runner.contexts.of(0).profiler is None
    engine = runner.contexts.of(0).engine
    engine.create_engine_inspector = lambda: SimpleNamespace(get_engine_information=lambda _: "no JSON")
    with pytest.raises(EngineError, match="cannot be read"):
        layers_tensorrt.trace(runner, lambda: None, 1)


def test_the_calls_are_those_of_the_real_bindings():
    trt = pytest.importorskip("tensorrt_rtx")
    assert trt.LayerInformationFormat.JSON
    assert callable(trt.EngineInspector.get_engine_information)
    assert callable(trt.ICudaEngine.create_engine_inspector)
    assert {"profiler", "engine"} <= set(dir(trt.IExecutionContext))

    class Profiler(trt.IProfiler):
        def __init__(self):
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name, ms):
            return layer_name, ms

    assert Profiler().report_layer_time("conv", 1.0) == ("conv", 1.0)
