"""The kinds of TensorRT, as Python packages: one API under two names. Imported only where one is used."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from devil.engine_key import BACKENDS, Backend
from devil.errors import EngineError, MissingPackageError

MODULES: dict[Backend, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
EXTRAS: dict[Backend, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx"}


def installed() -> tuple[Backend, ...]:
    """The kinds whose Python package is here, without loading it: whether its libraries load is seen on import."""
    return tuple(backend for backend in BACKENDS if importlib.util.find_spec(MODULES[backend]) is not None)


def import_tensorrt(backend: Backend) -> ModuleType:
    """The package of one kind.

    Raises:
        MissingPackageError: it is not installed.
        EngineError: its libraries do not load, or it is older than 10.
    """
    name = MODULES[backend]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise EngineError(f"{name} does not load ({error})", "install it again") from error
        raise MissingPackageError(name.replace("_", "-"), "a TensorRT engine", EXTRAS[backend]) from None
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise EngineError(f"{name} does not load ({reason})", "install the libraries of its version") from error
    if not hasattr(module, "Builder"):
        raise EngineError(f"{name} holds no libraries (it is a stub)", "install TensorRT from its own packages")
    if backend == "tensorrt" and int(module.__version__.split(".")[0]) < 10:
        raise EngineError(
            f"TensorRT {module.__version__} has no strongly typed networks", "install TensorRT 10 or newer"
        )
    return module


def version_numbers(version: str) -> tuple[int, int]:
    """(10, 15) for "10.15.1.29"."""
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
