"""The inference software of this machine: each package is imported in a process of its own and asked what it can do."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

from devil.plugins.loader import TENSORRT_LIBRARY, candidates
from devil.runtime.doctor.probe import ProbeError, ask
from devil.runtime.engines.identity import IDENTITY
from devil.tensorrt_api import MODULES

Ask = Callable[[list[str]], Any]

PACKAGES = ("numpy", "av", "pillow", "scipy", "tokenizers", "polygraphy", "torch", "transformers", "onnx")
_NAME = re.compile(r"onnxruntime(-gpu|-directml|-openvino|-rocm)?$")

_ONNXRUNTIME = """
import json, onnxruntime as ort
from onnxruntime.capi import build_and_package_info as built
getattr(ort, "preload_dlls", lambda: None)()
providers, works = ort.get_available_providers(), {}
options = ort.SessionOptions()
options.log_severity_level = 4
for name in ("CUDAExecutionProvider", "CPUExecutionProvider"):
    if name in providers:
        session = ort.InferenceSession(%r, options, providers=[name])
        works[name] = session.get_providers()[0] == name
print(json.dumps({"version": ort.__version__, "providers": providers, "works": works,
                  "cuda": str(getattr(built, "cuda_version", "") or "")}))
"""
_TENSORRT = """
import json, sys, %(module)s as trt
plugin, creators = %(plugin)r, []
if plugin:
    registry = trt.get_plugin_registry()
    registry.load_library(plugin)
    creators = [creator.name for creator in registry.all_creators]
print(json.dumps({"version": trt.__version__, "creators": creators}))
"""
_PYCUDA = "import json, pycuda, pycuda.driver as cuda; cuda.init(); print(json.dumps({'version': pycuda.VERSION_TEXT}))"


@dataclass(frozen=True)
class OnnxRuntime:
    """An installed ONNX Runtime.

    Attributes:
        packages: installed distributions of it with their versions; more than one overwrite each other's files.
        version: of the module that is imported; empty where that fails.
        cuda: CUDA version it was built with, such as "12.8"; empty for a CPU build.
        works: per provider of interest that it lists, whether a session runs on it.
        problem: why it cannot be imported; empty where it can.
    """

    packages: dict[str, str] = field(default_factory=dict)
    version: str = ""
    cuda: str = ""
    works: dict[str, bool] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class TensorRt:
    """An installed TensorRT.

    Attributes:
        kind: "tensorrt" or "tensorrt-rtx".
        version: whole; empty where it cannot be imported.
        plugin: the deformable-attention plugin that it loaded; empty without one.
        problem: why it, or its plugin, does not load; empty where all does.
        cuda: major version of the CUDA it was built with; None where its packages do not tell.
    """

    kind: str
    version: str = ""
    plugin: str = ""
    problem: str = ""
    cuda: int | None = None


@dataclass(frozen=True)
class Software:
    """What is installed.

    Attributes:
        python: its version.
        packages: versions of other packages of interest.
        onnxruntime: None where no module of that name is there.
        tensorrts: of every kind that is there.
        pycuda: its version, empty where it is not there.
        pycuda_problem: why it does not start.
    """

    python: str
    packages: dict[str, str]
    onnxruntime: OnnxRuntime | None
    tensorrts: tuple[TensorRt, ...] = ()
    pycuda: str = ""
    pycuda_problem: str = ""


def read_software(is_there: Callable[[str], bool] | None = None, asked: Ask = ask) -> Software:
    """Looks at everything that is installed; never raises.

    Args:
        is_there: whether a module is installed; by default looked up, without importing it.
        asked: runs `python ARGUMENTS…` for its JSON answer.
    """
    found = is_there or _is_there
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    pycuda, problem = _pycuda(asked) if found("pycuda") else ("", "")
    return Software(
        python=".".join(map(str, sys.version_info[:3])),
        packages=versions,
        onnxruntime=_onnxruntime(asked) if found("onnxruntime") else None,
        tensorrts=tuple(
            replace(_tensorrt(kind, asked), cuda=_cuda_of(kind)) for kind, module in MODULES.items() if found(module)
        ),
        pycuda=pycuda,
        pycuda_problem=problem,
    )


def _onnxruntime(asked: Ask) -> OnnxRuntime:
    names = {found.metadata["Name"].lower(): found.version for found in metadata.distributions()}
    packages = {name: version for name, version in sorted(names.items()) if _NAME.match(name)}
    try:
        told = asked(["-c", _ONNXRUNTIME % IDENTITY])
    except ProbeError as error:
        return OnnxRuntime(packages, problem=str(error))
    return OnnxRuntime(packages, told["version"], told["cuda"], told["works"])


def _tensorrt(kind: str, asked: Ask) -> TensorRt:
    # TensorRT-RTX takes no custom plugins: it runs the function body.
    plugin = next(iter(candidates(TENSORRT_LIBRARY)), None) if kind == "tensorrt" else None
    try:
        told = asked(["-c", _TENSORRT % {"module": MODULES[kind], "plugin": str(plugin or "")}])
    except ProbeError as error:
        if plugin is None:
            return TensorRt(kind, problem=str(error))
        alone = _without_plugin(kind, asked)
        return TensorRt(kind, alone.version, "", alone.problem or f"the plugin {plugin} does not load ({error})")
    if plugin and "MultiScaleDeformableAttention" not in told["creators"]:
        return TensorRt(kind, told["version"], "", f"the plugin {plugin} does not register with this TensorRT")
    return TensorRt(kind, told["version"], str(plugin or ""))


def _cuda_of(kind: str) -> int | None:
    """12 where, for example, a distribution tensorrt-cu12-libs is installed."""
    names = (found.metadata["Name"].lower().replace("_", "-") for found in metadata.distributions())
    matches = (re.match(rf"{kind}-cu(\d+)", name) for name in names)
    return max((int(match[1]) for match in matches if match), default=None)


def _without_plugin(kind: str, asked: Ask) -> TensorRt:
    try:
        return TensorRt(kind, asked(["-c", _TENSORRT % {"module": MODULES[kind], "plugin": ""}])["version"])
    except ProbeError as error:
        return TensorRt(kind, problem=str(error))


def _pycuda(asked: Ask) -> tuple[str, str]:
    try:
        return asked(["-c", _PYCUDA])["version"], ""
    except ProbeError as error:
        return _version("pycuda") or "?", str(error)


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
