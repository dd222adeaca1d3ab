"""A machine with a fake GPU and a fake TensorRT (tests/fake_*.py), and bundles with and without engines."""

import types

import pytest

from devil.runtime.engines import cuda_device
from devil.runtime.engines.gate import NumericGate
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine
from devil.runtime.engines.tensorrt import api
from devil.runtime.engines.tensorrt.engine import TensorRtEngine
from devil.runtime.pipeline import Grounder
from tests import engines, fake_cuda, fake_tensorrt
from tests.engines import RTX, SENTENCES, copied


@pytest.fixture(scope="module")
def gpu():
    """A machine with a fake GPU and a fake TensorRT."""
    with pytest.MonkeyPatch.context() as patch:
        machine, library = fake_cuda.install(patch)
        trt = fake_tensorrt.install(patch, machine)
        fake_tensorrt.install(patch, machine, RTX, rtx=True)
        yield types.SimpleNamespace(machine=machine, library=library, trt=trt)
    cuda_device.open_device.cache_clear()
    api.open_api.cache_clear()


@pytest.fixture(scope="session")
def built(bundle, tmp_path_factory):
    """A bundle with engines."""
    found = copied(bundle, tmp_path_factory.mktemp("built") / "bundle")
    engines.add_engines(found)
    return found


@pytest.fixture(scope="module")
def grounder(built):
    return Grounder(built, TensorRtEngine(built, "tensorrt", NumericGate()))


@pytest.fixture(scope="session")
def expected(built, clip_path):
    """Call for ONNX Runtime's answers."""
    video = Grounder(built, OnnxRuntimeEngine(threads=1)).encode(clip_path)
    return lambda **options: video.ground_many(SENTENCES, **options)


@pytest.fixture
def small(bundle, tmp_path):
    """A bundle without engines."""
    return copied(bundle, tmp_path / "bundle")
