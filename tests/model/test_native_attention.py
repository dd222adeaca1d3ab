"""The CPU kernel in PyTorch against grid_sample, and when it keeps out of the way."""

import pytest
import torch

from devil.model.detector import native
from devil.model.detector.attention import deformable_attention
from devil.plugins import native_available
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(not native_available(), reason="the native library is not built")

# Unit round-offs of the value's type; results are sums of weights that add up to 1 over values of about 1.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def operands(dtype=torch.float32, requires_grad=False):
    torch.manual_seed(0)
    shapes = torch.tensor([[5, 7], [3, 2]])
    value = torch.randn(2, 41, 4, 16).to(dtype).requires_grad_(requires_grad)
    weights = torch.rand(2, 9, 4, 8).softmax(-1).view(2, 9, 4, 2, 4).to(dtype)
    return value, shapes, torch.rand(2, 9, 4, 2, 4, 2) * 1.4 - 0.2, weights


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_kernel_equals_grid_sample(dtype):
    expected = deformable_attention(*operands(dtype))
    with native.native_attention() as available:
        found = deformable_attention(*operands(dtype))
    assert available
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, atol=TOLERANCE[dtype], rtol=0)


def test_the_kernel_runs_only_where_it_was_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(native.plugins, "numpy_op", lambda *_args, **_options: calls.append(1))
    deformable_attention(*operands())
    with native.native_attention():
        deformable_attention(*operands(requires_grad=True))
    deformable_attention(*operands())
    assert not calls


def test_gradients_are_kept_inside():
    value, *rest = operands(requires_grad=True)
    with native.native_attention():
        deformable_attention(value, *rest).sum().backward()
    assert value.grad.abs().sum() > 0


def test_the_operator_is_well_behaved_for_torch():
    torch.library.opcheck(native.native_deformable_attention, operands(), test_utils=("test_schema", "test_faketensor"))


def test_the_whole_detector_can_run_on_it():
    detector = tiny_model().detector
    frames = torch.randint(0, 256, (2, 97, 131, 3), dtype=torch.uint8)
    shapes = torch.tensor([[13, 17], [7, 9], [4, 5], [2, 3]])
    with torch.no_grad():
        expected = detector(frames, shapes, torch.ones(32))
        with native.native_attention():
            found = detector(frames, shapes, torch.ones(32))
    torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-5, rtol=0)
