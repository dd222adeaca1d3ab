"""TensorRT, played by stand-ins, beside ONNX Runtime: the same runs, in sizes that both take, and the same numbers."""

import shutil

import pytest

from devil.bundle import open_bundle
from devil.runtime.engines.gate import NumericGate
from devil.runtime.engines.tensorrt.engine import TensorRtEngine
from devil.runtime.pipeline import Grounder
from devil.runtime.profile.contender import Contender, Setup
from devil.runtime.profile.measuring import measure_all
from devil.runtime.profile.report import text
from devil.runtime.profile.turns import Amount
from tests import engines, fake_cuda, fake_tensorrt
from tests.runtime.profile.conftest import SENTENCE


class Here:
    """A contender of this process."""

    def __init__(self, name, contender):
        self.name, self.contender = name, contender

    def call(self, method, *arguments):
        return getattr(self.contender, method)(*arguments)


@pytest.fixture
def on_tensorrt(monkeypatch, bundle, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    opened = open_bundle(folder)
    machine, _ = fake_cuda.install(monkeypatch)
    fake_tensorrt.install(monkeypatch, machine)
    engines.add_engines(opened)
    return Contender(
        Setup(folder), lambda _: Grounder(opened, TensorRtEngine(opened, "tensorrt", NumericGate(trust=True)))
    )


def test_both_are_measured_in_sizes_that_both_take_and_compute_the_same(contender, on_tensorrt, clip_path):
    callers = [Here("cpu", contender), Here("gpu", on_tensorrt)]
    setups = {"cpu": contender.setup, "gpu": on_tensorrt.setup}
    amount = Amount(runs=1, iterations=2, warm_up=1, layers=1, accuracy=True)
    document = measure_all(callers, setups, str(clip_path), SENTENCE, amount)
    shapes = document["workload"]["shapes"]
    limits = {"vision": ("patches", 4), "backbone": ("frames", 3), "grounder": ("features", 3)}  # of tests.engines
    for case, (tensor, most) in limits.items():
        assert shapes[case][tensor][0] == most
    assert shapes["prefill"]["token_ids"][1] <= 64
    (compared,) = document["accuracy"]
    assert (compared["name"], compared["against"]) == ("gpu", "cpu")
    # Both compute with ONNX Runtime's float32 kernels, in other batches.
    assert max(tensor["relative"] for tensor in compared["tensors"]) < 1e-4
    cpu, gpu = document["contenders"]
    assert gpu["engine"] == "tensorrt"
    assert gpu["layers"]["decode"]["kinds"] == [{"kind": "Fake", "layers": 1, "seconds": pytest.approx(1.5e-3)}]
    assert cpu["layers"]["decode"]["kinds"][0]["kind"] != "Fake"
    assert "gpu against cpu" in text({"schema": 1, **document})
