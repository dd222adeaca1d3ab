"""What the driver tells, asked through a stand-in of its library that writes what the real one would."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from devil.gpu import Driver, Gpu, memory_in_use, read_driver

ORIN = Gpu("Orin", "sm87", 64 << 30, integrated=True)
H200 = Gpu("NVIDIA H200", "sm90", 141 << 30)


class FakeCuda:
    """The functions of libcuda that are asked; pointers come as ctypes' byref objects."""

    def __init__(self, gpus=(), served=12080, status=0):
        self.gpus, self.served, self.status = gpus, served, status

    def cuInit(self, flags):  # noqa: N802 - CUDA's names, here and below
        assert flags == 0
        return self.status

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = self.served
        return 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, device, ordinal):  # noqa: N802
        device._obj.value = ordinal + 7  # a handle, no ordinal
        return 0

    def cuDeviceGetName(self, name, size, device):  # noqa: N802
        name.value = self.gpus[device.value - 7].name.encode()[: size - 1]
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):  # noqa: N802
        memory._obj.value = self.gpus[device.value - 7].bytes
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        gpu = self.gpus[device.value - 7]
        value._obj.value = {75: int(gpu.capability[2:-1]), 76: int(gpu.capability[-1]), 18: gpu.integrated}[attribute]
        return 0

    def cuMemGetInfo_v2(self, free, total):  # noqa: N802
        if not self.gpus:
            return 201  # CUDA_ERROR_INVALID_CONTEXT
        free._obj.value, total._obj.value = self.gpus[0].bytes - (5 << 30), self.gpus[0].bytes
        return 0


@pytest.fixture
def root(tmp_path):
    """A system whose kernel module tells its version."""
    folder = tmp_path / "proc/driver/nvidia"
    folder.mkdir(parents=True)
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (builder@host)\nGCC\n"
    (folder / "version").write_text(line)
    return tmp_path


def test_every_gpu_is_told(root):
    found = read_driver(FakeCuda((H200, ORIN)), root)
    assert found == Driver((H200, ORIN), (12, 8), "570.86.15")


@pytest.mark.parametrize(
    ("status", "problem", "mend"),
    [(100, "finds no NVIDIA GPU", "CUDA_VISIBLE_DEVICES"), (803, "error 803", "restart"), (999, "error 999", "driver")],
)
def test_a_driver_that_does_not_start_says_what_to_do(root, status, problem, mend):
    found = read_driver(FakeCuda((H200,), status=status), root)
    assert found.gpus == ()
    assert problem in found.problem
    assert mend in found.mend
    assert found.cuda == (12, 8)


def test_memory_in_use_is_told_where_the_thread_has_a_gpu():
    assert memory_in_use(FakeCuda((H200,))) == 5 << 30
    assert memory_in_use(FakeCuda()) is None


def test_a_container_without_the_gpus_is_told_from_a_machine_without_a_driver(root, tmp_path, monkeypatch):
    monkeypatch.setattr("devil.gpu.open_library", lambda: None)
    assert "--gpus all" in read_driver(root=root).mend
    assert read_driver(root=tmp_path / "nothing").problem == "no NVIDIA driver"


def test_it_survives_json(root):
    found = read_driver(FakeCuda((ORIN,)), root)
    assert Driver.of_values(json.loads(json.dumps(asdict(found)))) == found


def test_a_process_of_its_own_tells_what_this_machine_has():
    done = subprocess.run([sys.executable, "-m", "devil.gpu"], check=True, capture_output=True, text=True)
    assert Driver.of_values(json.loads(done.stdout)) == read_driver()
