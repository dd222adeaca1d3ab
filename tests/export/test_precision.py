"""The precision pass on small graphs written by hand: which nodes stay fp32, where casts stand, what is refused."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from devil.contract import GraphSpec, TensorSpec
from devil.errors import CheckpointError
from devil.export.emulation import EmulateBf16
from devil.export.precision import LowerPrecision

FLOAT_IN = TensorSpec("x", "float", ("n", 4), "")
FULL_OUT = TensorSpec("y", "float32", ("n", 4), "")
LOW_OUT = TensorSpec("y", "float", ("n", 4), "")


def parse(body, inputs="float[n,4] x", outputs="float[n,4] y", weights=""):
    text = f'<ir_version: 10, opset_import: ["": 20]> g ({inputs}) => ({outputs}) {weights} {{ {body} }}'
    model = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text), strict_mode=True)
    return ir.from_proto(model)


def lowered(model, precision="fp16", inputs=(FLOAT_IN,), outputs=(LOW_OUT,), full_modules=()):
    LowerPrecision(precision, GraphSpec("g", inputs, outputs), full_modules)(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return [(node.op_type, node.outputs[0].dtype.name) for node in model.graph]


def test_fp32_leaves_the_graph_alone():
    model = parse("y = Softmax(x)")
    assert not LowerPrecision("fp32", GraphSpec("g", (FLOAT_IN,), (FULL_OUT,)))(model).modified


@pytest.mark.parametrize(("precision", "kind"), [("fp16", "FLOAT16"), ("bf16", "BFLOAT16")])
def test_softmax_computes_in_fp32_between_two_casts(precision, kind):
    nodes = lowered(parse("a = Relu(x) b = Softmax(a) y = Relu(b)"), precision)
    assert nodes == [("Relu", kind), ("Cast", "FLOAT"), ("Softmax", "FLOAT"), ("Cast", kind), ("Relu", kind)]


def test_one_cast_serves_all_users():
    nodes = lowered(parse("a = Softmax(x) b = Sigmoid(a) c = Tanh(a) y = Add(b, c)"))
    assert [kind for kind, _ in nodes].count("Cast") == 2


def test_weights_are_stored_once_in_the_type_that_uses_them():
    model = parse("y = Add(x, w)", weights="<float[4] w = {1, 2, 3, 4}>")
    lowered(model)
    assert [value.dtype.name for value in model.graph.initializers.values()] == ["FLOAT16"]


def test_a_weight_used_in_both_types_is_stored_in_both():
    body = "a = Softmax(x) b = Cos(w) c = Mul(a, b) d = Relu(c) y = Add(d, w)"
    model = parse(body, weights="<float[4] w = {1, 2, 3, 4}>")
    lowered(model)
    assert sorted(value.dtype.name for value in model.graph.initializers.values()) == ["FLOAT", "FLOAT16"]


def test_arithmetic_on_integers_stays_fp32_until_it_meets_activations():
    body = "f = Cast<to = 1>(i) s = Mul(f, w) t = Sub(s, w) u = Transpose<perm = [1, 0]>(t) y = MatMul(u, v)"
    model = parse(
        body, inputs="uint8[4,n] i", weights="<float[1] w = {0.1}, float[4,4] v = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}>"
    )
    nodes = lowered(model, inputs=(TensorSpec("i", "uint8", (4, "n"), ""),))
    types = ["FLOAT"] * 4 + ["FLOAT16"] * 2
    assert nodes == list(zip(["Cast", "Mul", "Sub", "Transpose", "Cast", "MatMul"], types, strict=True))


def test_nodes_of_a_full_module_stay_fp32():
    model = parse("a = Relu(x) b = Sqrt(a) y = Relu(b)")
    model.graph[1].metadata_props["pkg.torch.onnx.class_hierarchy"] = "['m.Whole', 'm.Exact', 'aten.sqrt.default']"
    nodes = lowered(model, full_modules=("m.Exact",))
    assert ("Sqrt", "FLOAT") in nodes
    assert nodes.count(("Relu", "FLOAT16")) == 2


def test_data_movement_follows_what_arrives():
    nodes = lowered(parse("a = Softmax(x) y = Identity(a)"), outputs=(FULL_OUT,))
    assert nodes == [("Cast", "FLOAT"), ("Softmax", "FLOAT"), ("Identity", "FLOAT")]


def test_outputs_get_the_types_of_the_contract_and_keep_their_names():
    model = parse("y = Relu(x)")
    assert lowered(model, outputs=(FULL_OUT,))[-1] == ("Cast", "FLOAT")
    assert [value.name for value in model.graph.outputs] == ["y"]


def test_a_weight_that_fp16_cannot_hold_is_refused():
    weights = "<float[4] w = {1, 2, 70000, 4}>"
    with pytest.raises(CheckpointError, match="w has values that fp16 cannot hold: export with --precision bf16"):
        lowered(parse("y = Add(x, w)", weights=weights))
    lowered(parse("y = Add(x, w)", weights=weights), "bf16")


def test_emulated_bf16_rounds_after_every_node_as_bf16_does():
    model = parse("a = Mul(x, x) b = Softmax(a) y = Add(b, a)")
    lowered(model, "bf16")
    EmulateBf16()(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    x = rounded(np.random.default_rng(0).normal(size=(3, 4)))
    squares = rounded(x * x)
    powers = np.exp(squares - squares.max(-1, keepdims=True))
    expected = rounded(rounded(powers / powers.sum(-1, keepdims=True)) + squares)
    (found,) = session.run(None, {"x": x})
    # exp differs in the last bits of fp32, which can turn a rounding: one unit in the last place of bf16.
    np.testing.assert_allclose(found, expected, rtol=2**-7)
    np.testing.assert_array_equal(found, rounded(found))


def rounded(values):
    return values.astype(ir.DataType.BFLOAT16.numpy()).astype(np.float32)
