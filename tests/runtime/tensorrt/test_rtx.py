"""TensorRT-RTX: what differs from TensorRT, and whether the real bindings are as the fakes of them."""

import json
import subprocess
import sys
from importlib import metadata

import pytest

from devil.contract import contract
from devil.runtime.engines.gate import NumericGate
from devil.runtime.engines.tensorrt.engine import TensorRtEngine
from tests import engines, fake_tensorrt
from tests.engines import RTX

pytestmark = pytest.mark.usefixtures("gpu")


def test_tensorrt_rtx_captures_by_itself_and_its_kernels_are_kept(small, gpu):
    stored = engines.add_engine(small, "language", backend="tensorrt-rtx", version=RTX)
    launches, spec = gpu.machine.launches, contract(small.config)["language"]
    engine = TensorRtEngine(small, "tensorrt-rtx", NumericGate())
    runner = engine.load(small.path("language"), spec, "fp32")  # the gate decodes
    assert gpu.machine.launches == launches
    config = runner.contexts.of(1).strategy
    assert (config.cuda_graph_strategy, config.allocation) == ("WHOLE_GRAPH_CAPTURE", "USER_MANAGED")
    assert stored.path.with_suffix(".jit").read_bytes() == b"compiled"
    again = engine.load(small.path("language"), spec, "fp32")
    assert again.contexts.of(1).strategy.cache.kernels == b"compiled, compiled"


def skip_without_rtx():
    """The module is faked in this process, so whether it is installed is asked by its distribution."""
    try:
        metadata.version("tensorrt-rtx-cu13-bindings")
    except metadata.PackageNotFoundError:
        pytest.skip("TensorRT-RTX is not installed")


REAL = """
from devil.errors import EngineError
from devil.runtime.engines.tensorrt.allocator import output_allocator
from devil.runtime.engines.tensorrt.api import DTYPES, open_api
api = open_api("tensorrt-rtx")
trt = api.trt
assert set(DTYPES) <= set(trt.DataType.__members__)
assert trt.ExecutionContextAllocationStrategy.USER_MANAGED and trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
assert trt.TensorLocation.HOST and trt.TensorIOMode.INPUT
runtime = api.wanted(trt.Runtime(api.logger), "Runtime")
try:
    with api.explained("it cannot be loaded", "build it again"):
        api.wanted(runtime.deserialize_cuda_engine(bytes(4096)), "deserialize_cuda_engine")
    raise AssertionError("zeros were taken for an engine")
except EngineError as error:
    assert "magicTag" in str(error) and "build it again" in str(error), error
output_allocator(api, "x")
"""


@pytest.mark.tensorrt
def test_the_real_bindings_take_what_we_give_them_and_say_what_is_wrong():
    skip_without_rtx()
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.tensorrt
@pytest.mark.parametrize("name", ["ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache"])
def test_the_fake_has_no_call_that_the_bindings_lack(name):
    skip_without_rtx()
    code = f"import json, tensorrt_rtx as trt; print(json.dumps(dir(trt.{name})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = {call for call in vars(getattr(fake_tensorrt, name)) if not call.startswith("_")} - {"kernels"}
    assert own <= set(json.loads(done.stdout))
