"""The CPU kernel on every instruction set, and the scalar reference, against grid_sample in float64."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from devil.errors import EngineError
from devil.plugins import native, native_available, numpy_op
from devil.plugins.native import instruction_sets, reference_op
from tests.msda import cases, hostile_cases, random_case, widen

pytestmark = pytest.mark.skipif(not native_available(), reason="the native library is not built")

ISAS = instruction_sets()
HOSTILE = hostile_cases()
TYPES = [("fp32", "fp32"), ("fp16", "fp16"), ("fp16", "fp32"), ("bf16", "bf16"), ("bf16", "fp32")]


def assert_within_bound(case, found, output="fp32"):
    error = np.abs(widen(found) - case.reference())
    worst = (error / np.maximum(case.bound(output), 1e-300)).max()
    assert worst <= 1, f"{case.name}: {worst:.2f} times the bound, error {error.max():.3g}"


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_scalar_reference_equals_grid_sample_on_hostile_input(case):
    np.testing.assert_allclose(reference_op(*case.inputs), case.reference(), rtol=0, atol=1e-11)


@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_scalar_reference_equals_grid_sample(case):
    np.testing.assert_allclose(reference_op(*case.inputs), case.reference(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_kernel_is_within_the_bound_on_hostile_input(case, isa):
    assert_within_bound(case, numpy_op(*case.inputs, isa=isa))


@pytest.mark.parametrize("isa", ISAS)
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_kernel_is_within_the_bound(case, isa):
    assert_within_bound(case, numpy_op(*case.inputs, isa=isa))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("types", TYPES, ids="-".join)
def test_narrow_storage_is_read_exactly_and_rounded_once(types, isa):
    for case in (HOSTILE[-1], HOSTILE[-3], HOSTILE[-5]):
        stored = case.stored(*types)
        found = numpy_op(*stored.inputs, isa=isa)
        assert found.dtype == stored.value.dtype
        assert_within_bound(stored, found, types[0])


@pytest.mark.parametrize("isa", ISAS)
def test_every_half_is_widened_and_narrowed_exactly(isa):
    """All 65536 bit patterns through a single sample of weight one at a pixel centre."""
    bits = np.arange(65536, dtype=np.uint16)
    for dtype in (np.float16, np.uint16):
        value = bits.view(dtype).reshape(1, 8, 1024, 8)[:, :1].copy()
        case = random_case([(1, 1)], queries=1, heads=1024, points=1)
        locations, weights = np.full_like(case.locations, 0.5), np.ones_like(case.weights)
        for part in range(8):
            value[:] = bits.view(dtype).reshape(8, 1, 1, 1024, 8)[part]
            found = numpy_op(value, case.shapes, locations, weights, isa=isa)
            expected = widen(value.reshape(1, 1, -1))
            np.testing.assert_array_equal(widen(found), np.where(expected == 0, 0, expected))  # 0 + -0 is 0


@pytest.mark.parametrize("isa", ISAS)
def test_half_results_round_to_nearest_even(isa):
    """Products of random weights and a random value cover ties, subnormals and overflow."""
    random = np.random.default_rng(3)
    shape = (1, 1, 4096, 8)
    exact = (random.normal(size=shape) * 10.0 ** random.integers(-8, 6, shape)).astype(np.float32)
    case = random_case([(1, 1)], queries=1, heads=4096, points=1)
    one = np.ones(shape, np.float16)
    weights = exact[0, 0, :, :1].reshape(1, 1, 4096, 1, 1)
    with np.errstate(over="ignore"):
        expected = np.broadcast_to(weights.reshape(1, 1, 4096, 1), (1, 1, 4096, 8)).astype(np.float16)
    found = numpy_op(one, case.shapes, np.full_like(case.locations, 0.5), weights, isa=isa)
    np.testing.assert_array_equal(found.reshape(shape), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_infinities_outside_a_footprint_do_not_leak(isa):
    case = random_case([(6, 6)], queries=200, heads=1, dim=32, points=8, spread=(-1.0, 2.0))
    poisoned = case.value.copy()
    poisoned.reshape(6, 6, 32)[2, 3] = np.inf
    poisoned.reshape(6, 6, 32)[3, 3] = np.nan
    clean = numpy_op(*case.inputs, isa=isa)
    found = numpy_op(*replace(case, value=poisoned).inputs, isa=isa)
    pixels = case.locations.reshape(1, 200, 8, 2) * 6 - 0.5
    touches = (np.abs(pixels[..., 0] - 3) < 1) & (pixels[..., 1] > 1) & (pixels[..., 1] < 4)
    untouched = ~touches.any(-1)
    assert 20 < untouched.sum() < 180
    np.testing.assert_array_equal(found[untouched], clean[untouched])
    assert not np.isfinite(found[~untouched]).any()


@pytest.mark.parametrize(("batch", "heads"), [(9, 8), (1, 72)], ids=["frames", "one frame"])
@pytest.mark.parametrize("isa", ISAS)
def test_rows_beyond_32_bit_offsets_are_reached(batch, heads, isa):
    """Values of 2^31 + 2^28 elements; pages that are never read are never made."""
    value = np.zeros((batch, 2**20, heads, 32), np.float16)
    value[-1, -1, -1] = np.arange(32)
    case = random_case([(1, 1)], batch=batch, queries=1, heads=heads, points=1)
    last = np.full_like(case.locations, 1 - 2.0**-11)  # the centre of the last of 1024 pixels
    found = numpy_op(value, np.array([[1024, 1024]]), last, np.ones_like(case.weights), isa=isa)
    np.testing.assert_array_equal(found[-1, -1, -32:], np.arange(32))
    assert not found.reshape(-1)[:-32].any()


@pytest.mark.parametrize("threads", [2, 3, 7, 100])
def test_threads_share_rows_without_changing_a_bit(threads):
    case = HOSTILE[-1]
    np.testing.assert_array_equal(numpy_op(*case.inputs, threads=threads), numpy_op(*case.inputs))


def test_calls_on_several_threads_do_not_disturb_each_other():
    many = [random_case([(5, 4), (3, 3)], queries=50, seed=seed) for seed in range(8)]
    alone = [numpy_op(*case.inputs) for case in many]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda case: numpy_op(*case.inputs), many * 5))
    for one, other in zip(alone * 5, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("isa", ISAS)
def test_the_environment_names_the_instruction_set(isa):
    code = "from devil.plugins import lowering; print(lowering())"
    found = subprocess.run(
        [sys.executable, "-c", code], env={"DEVIL_MSDA_ISA": isa}, capture_output=True, text=True, check=True
    )
    assert isa in found.stdout


PLAIN = random_case([(4, 3), (2, 2)])
BAD = {
    "do not sum": (replace(PLAIN, shapes=np.array([[4, 3], [2, 3]])), "4x3, 2x3 hold 18 tokens, but value has 16"),
    "level of no pixels": (replace(PLAIN, shapes=np.array([[4, 4], [0, 5]])), "level 1 must be 1 to 2.24 pixels"),
    "negative level": (replace(PLAIN, shapes=np.array([[-4, -4], [0, 0]])), "got -4x-4"),
    "huge level": (replace(PLAIN, shapes=np.array([[2**40, 2**40], [1, 1]])), "1099511627776x1099511627776"),
    "empty batch": (replace(PLAIN, value=PLAIN.value[:0], locations=PLAIN.locations[:0], weights=PLAIN.weights[:0]),
                    r"at least 1, got value \[0, 16, 2, 8\]"),
    "head size": (replace(PLAIN, value=PLAIN.value[..., :7]), "head size must be a multiple of 8, got 7"),
    "weights": (replace(PLAIN, weights=PLAIN.weights[:, :-1]), r"locations must have shape \(1, 4, 2, 2, 4, 2\), got"),
    "heads": (replace(PLAIN, value=PLAIN.value[:, :, :1]), r"weights must have shape \(1, 5, 1, 2, 4\), got"),
    "rank": (replace(PLAIN, locations=PLAIN.locations[0]), "6 dimensions and dtype float32, got float32 of shape"),
    "double": (replace(PLAIN, value=PLAIN.value.astype(np.float64)), "got float64 of shape"),
    "types": (replace(PLAIN, weights=PLAIN.weights.astype(np.float16)), "weights of the same type or float32"),
    "points": (random_case([(2, 2)], points=17), "points must be 1 to 16, got 17"),
    "levels": (random_case([(1, 1)] * 9), "levels must be 1 to 8, got 9"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_both_shapes(name):
    case, message = BAD[name]
    with pytest.raises(EngineError, match=message):
        numpy_op(*case.inputs)


def test_an_instruction_set_that_the_processor_lacks_is_refused(monkeypatch):
    monkeypatch.setitem(native.ISAS, "avx1024", 3)
    with pytest.raises(EngineError, match="lacks the instruction set"):
        numpy_op(*PLAIN.inputs, isa="avx1024")
