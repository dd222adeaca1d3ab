"""Layers as ONNX Runtime's profiler tells them."""

import json

import pytest

from devil.errors import EngineError
from devil.plugins import library
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
