"""Q/DQ: scales and outputs against PyTorch and onnxruntime.quantization, and the kernels ONNX Runtime makes of it."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from devil.calibration.forms import GRIDS
from devil.calibration.layers import find_layers
from devil.calibration.merge import MergeParallelLayers
from devil.calibration.qdq import InsertQDQ
from devil.calibration.ranges import Range
from devil.errors import CalibrationError
from tests.calibration.graphs import Build, kernels, run

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 5, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch):
    """Every test draws the same weights, whichever ran before it."""
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(1))


def weight(*shape):
    return (RNG.normal(size=shape) * RNG.uniform(0.1, 3, shape[-1])).astype(np.float32)


def test_values_beyond_the_range_are_cut_off(tmp_path):
    build = Build(x=("N", "S", 16))
    model = build.model(build.linear(build["x"], np.eye(16, dtype=np.float32)))
    (found,) = run(quantised(model, {"x": 1.0}), tmp_path, x=X)
    np.testing.assert_allclose(found, np.clip(X, -128 / 127, 1), atol=0.5 / 127 + 1e-6)  # QuantizeLinear uses −128 too


def quantised(model, thresholds, form="int8", **kept):
    found = model.clone()
    chosen = {layer: form for layer in find_layers(model) if layer.name not in kept.get("without", ())}
    InsertQDQ(chosen, {name: Range(threshold) for name, threshold in thresholds.items()})(found)
    return found


def two_layers():
    build = Build(x=("N", "S", 16))
    hidden = build.op("Relu", build.linear(build["x"], weight(16, 32), weight(32), "one"), name="relu")
    return build.model(build.linear(hidden, weight(32, 8), weight(8), "two"))


def fake_quantised(x, w, threshold):
    """Linear layer of PyTorch's own fake quantisation: x [..., K], w [K, N]."""
    x = torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), float(threshold) / 127, 0, -127, 127)
    w = torch.from_numpy(w)
    scales = w.abs().amax(0) / 127
    return x @ torch.fake_quantize_per_channel_affine(
        w, scales, torch.zeros(len(scales), dtype=torch.int32), 1, -127, 127
    )


def test_the_graph_computes_what_pytorchs_fake_quantisation_does(tmp_path):
    model = two_layers()
    thresholds = {"x": 2.5, "relu_out": 4.0}
    one, two = (model.graph.initializers[f"{name}.weight"].const_value.numpy() for name in ("one", "two"))
    biases = [torch.from_numpy(model.graph.initializers[f"{name}.bias"].const_value.numpy()) for name in ("one", "two")]
    hidden = torch.relu(fake_quantised(X, one, 2.5) + biases[0])
    expected = fake_quantised(hidden.numpy(), two, 4.0) + biases[1]
    (found,) = run(quantised(model, thresholds), tmp_path, x=X)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_scales_are_those_of_onnxruntimes_own_quantiser(tmp_path):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Once(CalibrationDataReader):
        feeds = iter([{"x": X}])

        def get_next(self):
            return next(self.feeds, None)

    model = two_layers()
    (tmp_path / "float.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "theirs.onnx", Once(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"],
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )  # fmt: skip
    theirs = {
        one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(tmp_path / "theirs.onnx").graph.initializer
    }
    hidden = np.maximum(X @ model.graph.initializers["one.weight"].const_value.numpy()
                        + model.graph.initializers["one.bias"].const_value.numpy(), 0)  # fmt: skip
    thresholds = {"x": float(np.abs(X).max()), "relu_out": float(hidden.max())}
    ours = quantised(model, thresholds).graph.initializers
    np.testing.assert_allclose(ours["x_int8_scale"].const_value.numpy(), theirs["x_scale"], rtol=1e-6)
    np.testing.assert_allclose(ours["relu_out_int8_scale"].const_value.numpy(), theirs["relu_out_scale"], rtol=1e-6)
    for name in ("one", "two"):
        np.testing.assert_allclose(
            ours[f"{name}.weight_int8_1_scale"].const_value.numpy(), theirs[f"{name}.weight_scale"], rtol=1e-6
        )
        np.testing.assert_array_equal(
            ours[f"{name}.weight_int8_1"].const_value.numpy(), theirs[f"{name}.weight_quantized"]
        )


def rounded(weights, axis, grid):
    """Weights on a grid with a scale per output, by a loop."""
    parts = np.moveaxis(weights, axis, 0)
    found = [grid.rounded(part, float(np.abs(part).max()) / grid.largest) for part in parts]
    return torch.from_numpy(np.moveaxis(np.stack(found), 0, axis))


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_a_convolution_has_a_scale_per_output_channel(tmp_path, form):
    build, kernel, grid = Build(x=("N", 4, 6, 6)), weight(3, 4, 3, 3), GRIDS[form]
    model = build.model(build.op("Conv", build["x"], build.constant("w", kernel), name="conv", kernel_shape=[3, 3]))
    pictures = RNG.uniform(-2, 2, (2, 4, 6, 6)).astype(np.float32)
    expected = torch.conv2d(torch.from_numpy(grid.rounded(pictures, 2.0 / grid.largest)), rounded(kernel, 0, grid))
    (found,) = run(quantised(model, {"x": 2.0}, form), tmp_path, x=pictures)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", ["int8", "fp8"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_has_a_scale_per_output_whichever_way_its_weight_lies(tmp_path, form, transposed):
    build, matrix, grid = Build(x=("N", 16)), weight(16, 16), GRIDS[form]
    model = build.model(build.op("Gemm", build["x"], build.constant("w", matrix), name="gemm", transB=transposed))
    weights = rounded(matrix, 1 - transposed, grid)
    expected = torch.from_numpy(grid.rounded(X[0], 5.0 / grid.largest)) @ (weights.T if transposed else weights)
    (found,) = run(quantised(model, {"x": 5.0}, form), tmp_path, x=X[0])
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


def shared_activation():
    build = Build(x=("N", "S", 16))
    norm = build.op("Sqrt", build.op("Abs", build["x"]), name="norm")
    parts = [build.linear(norm, weight(16, width), weight(width), f"part{width}") for width in (8, 24, 4)]
    return build.model(*parts)


def test_merged_layers_give_what_they_gave_apart(tmp_path):
    model = shared_activation()
    merged = model.clone()
    MergeParallelLayers([("part8", "part24", "part4")])(merged)
    assert Counter(node.op_type for node in merged.graph)["MatMul"] == 1
    for ours, exact in zip(run(merged, tmp_path, x=X), run(model, tmp_path, x=X), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=1e-6, atol=1e-6)


def test_integer_kernels_run_where_layers_share_an_activation(tmp_path):
    ran = kernels(quantised(shared_activation(), {"norm_out": 2.0}), tmp_path, x=X)
    assert ran["MatMulIntegerToFloat"] == 1
    assert not ran["MatMul"]
    assert not ran["DequantizeLinear"]


def test_layers_that_are_not_chosen_stay_as_they_are(tmp_path):
    ran = kernels(quantised(two_layers(), {"x": 2.5}, without=["two"]), tmp_path, x=X)
    assert (ran["MatMulIntegerToFloat"], ran["MatMul"]) == (1, 1)


def test_a_weight_that_layers_share_is_stored_once(tmp_path):
    build = Build(x=("N", "S", 16))
    shared = build.constant("shared", weight(16, 16))
    first = build.op("MatMul", build["x"], shared, name="one")
    model = build.model(build.op("MatMul", build.op("Relu", first, name="relu"), shared, name="two"))
    found = quantised(model, {"x": 3.0, "relu_out": 3.0})
    stored = [value for value in found.graph.initializers.values() if value.dtype == ir.DataType.INT8 and value.shape]
    assert len(stored) == 1
    assert "shared" not in found.graph.initializers
    assert run(found, tmp_path, x=X)[0].shape == X.shape


def test_fp8_behind_a_relu_keeps_negative_values_out(tmp_path):
    model = two_layers()
    (ours,), (exact,) = (
        run(quantised(model, {"x": 5.0, "relu_out": 60.0}, "fp8"), tmp_path, x=X),
        run(model, tmp_path, x=X),
    )
    assert np.abs(ours - exact).mean() < 0.05 * np.abs(exact).mean()


def test_a_graph_of_fp16_is_quantised_in_fp16(tmp_path):
    build = Build(x=("N", "S", 16))
    half = build.op("Cast", build["x"], to=ir.DataType.FLOAT16, dtype=ir.DataType.FLOAT16)
    product = build.op(
        "MatMul", half, build.constant("w", weight(16, 8).astype(np.float16)), name="one", dtype=ir.DataType.FLOAT16
    )
    model = build.model(build.op("Cast", product, to=ir.DataType.FLOAT))
    found = quantised(model, {"Cast_0_out": 4.0})
    assert found.graph.initializers["w_int8_1_scale"].dtype == ir.DataType.FLOAT16
    (ours,), (exact,) = run(found, tmp_path, x=X), run(model, tmp_path, x=X)
    assert np.abs(ours - exact).max() < 0.05 * np.abs(exact).max()


def test_an_unknown_range_and_a_broken_weight_are_named():
    with pytest.raises(CalibrationError, match="relu_out"):
        quantised(two_layers(), {"x": 1.0})
    build = Build(x=("N", "S", 16))
    broken = weight(16, 4)
    broken[3, 2] = np.nan
    with pytest.raises(CalibrationError, match=r"one\.weight"):
        quantised(build.model(build.linear(build["x"], broken, name="one")), {"x": 1.0})


def test_nodes_stay_in_an_order_in_which_they_can_be_run_whatever_the_order_of_the_choice():
    model = shared_activation()
    layers, made = find_layers(model), []
    for chosen in (layers, layers[::-1]):
        found = model.clone()
        InsertQDQ(dict.fromkeys(chosen, "int8"), {"norm_out": Range(2.0)})(found)
        ready = {*found.graph.inputs, *found.graph.initializers.values()}
        for node in found.graph:
            assert ready.issuperset(value for value in node.inputs if value is not None), node.name
            ready.update(node.outputs)
        made.append(ir.to_proto(found).SerializeToString(deterministic=True))
    assert made[0] == made[1]
