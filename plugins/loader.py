"""Finding the native library, and refusing one that does not belong to this machine or this ONNX Runtime."""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
from importlib import metadata
from pathlib import Path

from devil.errors import EngineError

ABI = 1
"""Version of the C interface (`devil_msda_abi`) that this package calls."""

FUNCTION_BODY = "function body (GridSample)"

LIBRARY = "devil_msda.dll" if sys.platform == "win32" else "libdevil_msda.so"
TENSORRT_LIBRARY = "libdevil_msda_tensorrt.so"
_ONNXRUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
_log = logging.getLogger(__name__)


class LibraryRefusedError(EngineError):
    """The library cannot be used here; the message is one line that says why."""


def candidates(name: str) -> list[Path]:
    """The files of that name, `LIBRARY` or `TENSORRT_LIBRARY`, that were built for this package; the best first.

    They lie beside the installed package and, for an editable install, in the checkout's `build` folder.
    """
    folders = [Path(path) for path in sys.modules["devil.plugins"].__path__]  # two for an editable install
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "CMakeLists.txt").is_file():
        folders.append(checkout / "build" / "plugins")
    return [folder / name for folder in folders if (folder / name).is_file()]


@functools.cache
def native_path() -> Path | None:
    """The library that was built for this package, or None. One that is there but does not fit is refused with one
    warning.
    """
    for path in candidates(LIBRARY):
        try:
            load(path)
        except LibraryRefusedError as reason:
            _log.warning("deformable attention: %s; the ONNX function body is used", reason)
            continue
        return path
    return None


@functools.cache
def library() -> Path | None:
    """The library to register with ONNX Runtime (`SessionOptions.register_custom_ops_library`), or None.

    None means that graphs run the function body that they carry.
    """
    path = native_path()
    if path is None:
        return None
    try:
        check_onnxruntime(path, _onnxruntime_version())
    except LibraryRefusedError as reason:
        _log.warning("deformable attention: %s; the ONNX function body is used", reason)
        return None
    return path


def cuda_library() -> Path | None:
    """`library()`, where its operator runs on ONNX Runtime's CUDA provider too.

    Another would take the node from the GPU, because a registered operator wins over the function body.
    """
    path = library()
    return path if path is not None and serves_cuda(path) else None


def serves_cuda(path: Path) -> bool:
    """Whether the library has the operator for ONNX Runtime's CUDA provider; one from before this was asked has not."""
    return bool(getattr(load(path), "devil_msda_onnxruntime_cuda", lambda: 0)())


def lowering() -> str:
    """Which implementation of deformable attention ONNX Runtime runs on this machine's CPU, in words."""
    path = library()
    if path is None:
        return FUNCTION_BODY
    return f"native CPU kernel ({load(path).devil_msda_isa_name(-1).decode()})"


def load(path: Path) -> ctypes.CDLL:
    """Opens the library.

    Raises:
        LibraryRefusedError: not a library, built for another processor, or with another C interface.
    """
    try:
        opened = ctypes.CDLL(str(path))
        abi = opened.devil_msda_abi()
    except OSError as error:
        raise LibraryRefusedError(f"{path} does not load ({_one_line(error)})") from error
    except AttributeError as error:
        raise LibraryRefusedError(f"{path} is another library") from error
    if abi != ABI:
        raise LibraryRefusedError(f"{path} has C interface {abi}, this package needs {ABI}: install the package again")
    opened.devil_msda_isa_name.restype = ctypes.c_char_p
    return opened


def check_onnxruntime(path: Path, version: str | None) -> None:
    """Checks the library against an ONNX Runtime, given its version such as '1.31.1' (None: not installed).

    Raises:
        LibraryRefusedError: the library was built without the operator, or the runtime is older than its C API.
    """
    api = load(path).devil_msda_onnxruntime_api()
    if api == 0:
        raise LibraryRefusedError(f"{path} was built without ONNX Runtime's C API header")
    if version is not None and tuple(int(part) for part in version.split(".")[:2]) < (1, api):
        raise LibraryRefusedError(f"{path} needs ONNX Runtime 1.{api} or newer, this is {version}")


def _onnxruntime_version() -> str | None:
    """Read from the installed packages, because importing ONNX Runtime only to ask would be slow."""
    for name in _ONNXRUNTIMES:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
