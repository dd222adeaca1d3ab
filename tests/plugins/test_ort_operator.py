"""The operator in ONNX Runtime: the native kernel in place of the function body, and what it refuses."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings

from devil.export.msda import DOMAIN, INPUTS, OP_TYPE, AttachDeformableAttention
from devil.plugins import library, numpy_op
from tests.msda import UNIT, cases, hostile_cases, random_case

pytestmark = pytest.mark.skipif(library() is None, reason="the ONNX Runtime operator is not built")

HOSTILE = hostile_cases()
TYPES = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
SILENT = 4  # log level: expected failures are not printed


def model(levels, value="fp32", weights=None, body=True, rank_known=True):
    """One node with the operator, every size dynamic. bf16 comes and goes as fp32, which numpy can hold."""
    kinds = (TYPES[value], ir.DataType.INT64, ir.DataType.FLOAT, TYPES[weights or value])
    inputs, nodes, operands = [], [], []
    for name, kind, rank in zip(INPUTS, kinds, (4, 2, 6, 5), strict=True):
        outer = ir.DataType.FLOAT if kind == TYPES["bf16"] else kind
        shape = ir.Shape([f"{name}{axis}" for axis in range(rank)]) if rank_known else None
        inputs.append(ir.Value(name=name, type=ir.TensorType(outer), shape=shape))
        cast = ir.node("Cast", [inputs[-1]], {"to": kind})
        nodes.append(cast)
        operands.append(cast.outputs[0])
    nodes.append(ir.Node(DOMAIN, OP_TYPE, operands, num_outputs=1))
    outer = ir.DataType.FLOAT if value == "bf16" else TYPES[value]
    nodes.append(ir.node("Cast", [nodes[-1].outputs[0]], {"to": outer}))
    output = nodes[-1].outputs[0]
    output.name, output.type, output.shape = "output", ir.TensorType(outer), ir.Shape(["N", "Q", "C"])
    graph = ir.Graph(inputs, [output], nodes=nodes, opset_imports={"": 20, DOMAIN: 1}, name="one")
    made = ir.Model(graph, ir_version=10)
    if body:
        made = AttachDeformableAttention(levels)(made).model
    return ir.to_proto(made).SerializeToString()


def session(levels, native=True, threads=1, **kwargs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    options.intra_op_num_threads = threads
    if native:
        options.register_custom_ops_library(str(library()))
    return onnxruntime.InferenceSession(model(levels, **kwargs), options, providers=["CPUExecutionProvider"])


def run(made, case):
    return made.run(None, dict(zip(INPUTS, case.inputs, strict=True)))[0]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_native_kernel_and_function_body_agree_with_the_reference(case):
    levels = len(case.shapes)
    native, body = run(session(levels), case), run(session(levels, native=False), case)
    np.testing.assert_array_equal(native, numpy_op(*case.inputs))
    assert (np.abs(native - case.reference()) <= case.bound("fp32")).all()
    assert (np.abs(native - body) <= 2 * case.bound("fp32")).all()


@given(case=cases())
@settings(max_examples=15, deadline=None)
def test_native_kernel_equals_the_library_called_directly(case):
    np.testing.assert_array_equal(run(session(len(case.shapes), body=False), case), numpy_op(*case.inputs))


@pytest.mark.parametrize("weights", ["fp32", "narrow"])
@pytest.mark.parametrize("value", ["fp16", "bf16"])
def test_narrow_types_run_natively(value, weights):
    case = HOSTILE[-1]
    stored = case.stored(value, value if weights == "narrow" else "fp32")
    given = stored if value == "fp16" else case  # the graph casts bf16 itself
    kinds = {"value": value, "weights": value if weights == "narrow" else "fp32"}
    found = run(session(len(case.shapes), body=False, **kinds), given)
    assert (np.abs(found - stored.reference()) <= stored.bound(value)).all()
    assert np.abs(found - case.reference()).max() < 8 * UNIT[value] * np.abs(case.value).max()


def test_the_kernel_replaces_the_body(tmp_path):
    """The profile of a session names what ran: the operator itself natively, GridSample otherwise."""
    case = HOSTILE[-1]
    for native, expected, unwanted in ((True, OP_TYPE, "GridSample"), (False, "GridSample", f'"{OP_TYPE}"')):
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / str(native))
        if native:
            options.register_custom_ops_library(str(library()))
        made = onnxruntime.InferenceSession(model(len(case.shapes)), options)
        run(made, case)
        with open(made.end_profiling()) as file:
            profile = file.read()
        assert f'"op_name" : "{expected}"' in profile
        assert f'"op_name" : "{unwanted}"' not in profile


def test_several_threads_give_the_same_bits():
    case = random_case([(23, 17), (11, 9)], batch=3, queries=101, heads=4, dim=32)
    np.testing.assert_array_equal(run(session(2, threads=4), case), run(session(2), case))


def test_two_sessions_at_once_do_not_disturb_each_other():
    case = random_case([(23, 17), (11, 9)], batch=2, queries=101, heads=4, dim=32)
    sessions = [session(2, threads=2), session(2, threads=2, value="fp16")]
    inputs = [case, case.stored("fp16", "fp16")]
    alone = [run(made, each) for made, each in zip(sessions, inputs, strict=True)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: run(sessions[i % 2], inputs[i % 2]), range(40)))
    for i, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[i % 2])


PLAIN = random_case([(4, 3), (2, 2)], batch=2)
BAD = {
    "rank": (
        replace(PLAIN, locations=PLAIN.locations[0]),
        r"sampling locations must be .* = \[2, 5, 2, 2, 4, 2\], got \[5, 2, 2, 4, 2\]",
    ),
    "levels": (
        replace(PLAIN, weights=PLAIN.weights[:, :, :, :1]),
        r"weights must be .* = \[2, \?, 2, 2, \?\], got \[2, 5, 2, 1, 4\]",
    ),
    "points": (
        replace(PLAIN, locations=PLAIN.locations[..., :3, :]),
        r"= \[2, 5, 2, 2, 4, 2\], got \[2, 5, 2, 2, 3, 2\]",
    ),
    "coordinates": (replace(PLAIN, locations=PLAIN.locations[..., :1]), r"got \[2, 5, 2, 2, 4, 1\]"),
    "batch": (replace(PLAIN, value=PLAIN.value[:1]), r"= \[1, \?, 2, 2, \?\], got \[2, 5, 2, 2, 4\]"),
    "shapes": (replace(PLAIN, shapes=PLAIN.shapes.reshape(-1)), r"spatial shapes must be .* = \[\?, 2\], got \[4\]"),
    "sum": (replace(PLAIN, shapes=PLAIN.shapes + 1), "5x4, 3x3 hold 29 tokens, but value has 16"),
    "negative": (replace(PLAIN, shapes=-PLAIN.shapes), "level 0 must be 1 to 2.24 pixels .*, got -4x-3"),
    "head size": (replace(PLAIN, value=PLAIN.value[..., :6]), "head size must be a multiple of 8, got 6"),
    "empty batch": (
        replace(PLAIN, value=PLAIN.value[:0], locations=PLAIN.locations[:0], weights=PLAIN.weights[:0]),
        "batch must be at least 1, got 0",
    ),
    "no queries": (
        replace(PLAIN, locations=PLAIN.locations[:, :0], weights=PLAIN.weights[:, :0]),
        "queries must be 1 to .*, got 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_a_status_with_the_expected_and_the_actual_shape(name):
    case, message = BAD[name]
    made = session(2, body=False, rank_known=False)
    with pytest.raises(Exception, match=f"{OP_TYPE}: .*{message}"):
        run(made, case)
    np.testing.assert_array_equal(run(made, PLAIN), numpy_op(*PLAIN.inputs))  # the session is still good


def test_an_unsupported_dtype_is_refused_when_the_graph_is_loaded(monkeypatch):
    monkeypatch.setitem(TYPES, "double", ir.DataType.DOUBLE)
    with pytest.raises(Exception, match=r"tensor\(double\)"):
        session(2, value="double", body=False)
