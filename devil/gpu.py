"""NVIDIA GPUs as the driver itself tells of them, without any CUDA package.

`python -m devil.gpu` prints the same as one line of JSON: whoever does not trust a driver asks it in a process of its
own, because a broken one may hang or take the process down.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# cuda.h: CUresult and CUdevice_attribute.
_NO_DEVICE = 100
_MENDS = {
    34: "a stub library stands in for the driver: take it off LD_LIBRARY_PATH",
    802: "start the NVIDIA fabric manager, or wait until it is ready",
    803: "restart the machine: the driver was updated under the running kernel module",
    804: "remove the CUDA compatibility package, or update the driver",
}
_UPDATE = "install the driver again"
_CONTAINER = "in a container, start it with the GPUs (docker run --gpus all)"
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: as its maker calls it.
        capability: compute capability, as "sm89".
        bytes: of its memory; an integrated GPU shares the machine's.
        integrated: it has no memory of its own, as in a Jetson.
    """

    name: str
    capability: str
    bytes: int
    integrated: bool = False


@dataclass(frozen=True)
class Driver:
    """What the driver says.

    Attributes:
        gpus: in the order in which CUDA numbers them.
        cuda: newest CUDA that the driver serves, (major, minor); None without a driver.
        version: of the driver, such as "570.86.15"; empty where the system does not tell.
        problem: why there is no GPU to use, in words; empty where there is one.
        mend: what to do about the problem.
    """

    gpus: tuple[Gpu, ...] = ()
    cuda: tuple[int, int] | None = None
    version: str = ""
    problem: str = ""
    mend: str = ""

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Driver:
        """The inverse of `dataclasses.asdict`, through JSON."""
        gpus = tuple(Gpu(**gpu) for gpu in values["gpus"])
        return cls(**{**values, "gpus": gpus, "cuda": tuple(values["cuda"]) if values["cuda"] else None})


def machine_name(gpu: Gpu, driver: Driver, runtime: str) -> str:
    """What a verdict on an engine holds for: the same engine may compute otherwise on another GPU, driver or TensorRT.

    Args:
        runtime: the TensorRT and its version.
    """
    return f"{gpu.name} {gpu.capability}, driver {driver.version or 'unknown'}, {runtime}"


def read_driver(library: Any = None, root: Path = Path("/")) -> Driver:
    """What the driver of this machine says; never raises.

    Args:
        library: CUDA's driver library, opened; by default the system's.
        root: folder in which `proc` is looked for.
    """
    version = _kernel_module(root)
    cuda = library or open_library()
    if cuda is None:
        if version:
            return Driver(version=version, problem="the driver's CUDA library (libcuda) is missing", mend=_CONTAINER)
        return Driver(problem="no NVIDIA driver", mend="for a GPU, install NVIDIA's driver")
    served = _number(cuda.cuDriverGetVersion)
    newest = (served // 1000, served % 1000 // 10) if served else None
    status = cuda.cuInit(0)
    if status == _NO_DEVICE:
        return Driver((), newest, version, "the driver finds no NVIDIA GPU", "look at CUDA_VISIBLE_DEVICES")
    if status:
        return Driver((), newest, version, f"CUDA does not start (error {status})", _MENDS.get(status, _UPDATE))
    gpus = tuple(_gpu(cuda, index) for index in range(_number(cuda.cuDeviceGetCount) or 0))
    return Driver(gpus, newest, version, "" if gpus else "the driver finds no NVIDIA GPU")


def memory_in_use(library: Any = None) -> int | None:
    """Bytes of the GPU that this thread computes on which are taken, by whomever; None where it computes on none.

    Args:
        library: CUDA's driver library, opened; by default the system's.
    """
    cuda = library or open_library()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    if cuda is None or cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)):
        return None
    return total.value - free.value


def open_library() -> ctypes.CDLL | None:
    """CUDA's driver library, where there is one."""
    for name in ("nvcuda.dll",) if sys.platform == "win32" else ("libcuda.so.1", "libcuda.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _gpu(cuda: Any, index: int) -> Gpu:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)

    def attribute(number: int) -> int:
        return _number(cuda.cuDeviceGetAttribute, number, device) or 0

    capability = f"sm{attribute(_MAJOR)}{attribute(_MINOR)}"
    return Gpu(name.value.decode(errors="replace"), capability, memory.value, bool(attribute(_INTEGRATED)))


def _number(function: Any, *arguments: object) -> int | None:
    """The number that a function of the driver writes; None where it fails."""
    value = ctypes.c_int()
    return None if function(ctypes.byref(value), *arguments) else value.value


def _kernel_module(root: Path) -> str:
    try:
        text = (root / "proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)", text)
    return found[1] if found else ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(read_driver())) + "\n")
