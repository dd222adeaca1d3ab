"""The CPU kernel on numpy arrays, without ONNX Runtime."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from devil.errors import EngineError
from devil.plugins.loader import load, native_path

ISAS = {"auto": -1, "generic": 0, "avx2": 1, "avx512": 2}
"""Instruction sets that can be asked for by name."""

_TYPES = {np.dtype(np.float32): 0, np.dtype(np.float16): 1, np.dtype(np.uint16): 2}
_MESSAGE_BYTES = 512


class Arguments(ctypes.Structure):
    """Mirrors `msda::Arguments` in include/msda/arguments.h."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("spatial_shapes", ctypes.c_void_p),
        ("locations", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("tokens", ctypes.c_int64),
        ("queries", ctypes.c_int64),
        ("heads", ctypes.c_int32),
        ("head_size", ctypes.c_int32),
        ("levels", ctypes.c_int32),
        ("points", ctypes.c_int32),
        ("value_type", ctypes.c_int32),
        ("weight_type", ctypes.c_int32),
    )


@dataclass(frozen=True)
class Call:
    """One call: the arrays that must stay alive while it runs, and what the library is given."""

    arrays: tuple[np.ndarray, ...]
    output: np.ndarray
    arguments: Arguments

    @property
    def rows(self) -> int:
        """Number of (frame, query) rows."""
        return self.arguments.batch * self.arguments.queries


def native_available() -> bool:
    """Whether `numpy_op` can run: the library was built and fits this machine (with or without ONNX Runtime)."""
    return native_path() is not None


def instruction_sets() -> list[str]:
    """The instruction sets of the CPU kernel that this processor has, slowest first; empty without the library."""
    opened = _opened()
    if opened is None:
        return []
    return [name for name, isa in ISAS.items() if isa >= 0 and opened.devil_msda_isa_name(isa)]


def numpy_op(
    value: np.ndarray,
    spatial_shapes: np.ndarray,
    locations: np.ndarray,
    weights: np.ndarray,
    *,
    threads: int = 1,
    isa: str = "auto",
) -> np.ndarray:
    """Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, equation 3) with the CPU kernel.

    Args:
        value: `[N, S, heads, dim]` float32, float16, or uint16 holding the bits of bfloat16; dim a multiple of 8.
        spatial_shapes: `[levels, 2]` int64, height and width of each level; their products sum to S.
        locations: `[N, Q, heads, levels, points, 2]` float32, x then y, 0-1 over the level.
        weights: `[N, Q, heads, levels, points]` of value's dtype or float32.
        threads: how many threads share the rows.
        isa: one of `ISAS`, to force an instruction set.

    Returns:
        `[N, Q, heads * dim]` of value's dtype.

    Raises:
        EngineError: no library, an unsupported dtype, or shapes that do not fit together.
    """
    call = prepare_call(value, spatial_shapes, locations, weights)
    step = -(-call.rows // threads)
    ranges = [(begin, min(begin + step, call.rows)) for begin in range(0, call.rows, step)] if call.rows else [(0, 0)]
    if len(ranges) == 1:
        _run_rows(call, isa, *ranges[0])
    else:
        with ThreadPoolExecutor(len(ranges)) as pool:
            list(pool.map(lambda rows: _run_rows(call, isa, *rows), ranges))
    return call.output


def reference_op(
    value: np.ndarray, spatial_shapes: np.ndarray, locations: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """The scalar C++ reference in double precision; same inputs as `numpy_op`, float64 output."""
    call = prepare_call(value, spatial_shapes, locations, weights, output_dtype=np.float64)
    invoke("devil_msda_reference", ctypes.byref(call.arguments))
    return call.output


def prepare_call(
    value: np.ndarray,
    spatial_shapes: np.ndarray,
    locations: np.ndarray,
    weights: np.ndarray,
    output_dtype: type | None = None,
) -> Call:
    """Checks what the library cannot see (ranks, dtypes, contiguity) and fills its arguments."""
    arrays = (
        _array("value", value, 4, _TYPES),
        _array("spatial_shapes", spatial_shapes, 2, (np.dtype(np.int64),)),
        _array("locations", locations, 6, (np.dtype(np.float32),)),
        _array("weights", weights, 5, _TYPES),
    )
    value, spatial_shapes, locations, weights = arrays
    batch, tokens, heads, head_size = value.shape
    levels, queries, points = spatial_shapes.shape[0], weights.shape[1], weights.shape[4]
    expected = {
        "spatial_shapes": (spatial_shapes, (levels, 2)),
        "weights": (weights, (batch, queries, heads, levels, points)),
        "locations": (locations, (batch, queries, heads, levels, points, 2)),
    }
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise EngineError(f"deformable attention: {name} must have shape {shape}, got {array.shape}")
    output = np.empty((batch, queries, heads * head_size), output_dtype or value.dtype)
    arguments = Arguments(
        *(array.ctypes.data for array in (*arrays, output)),
        *(batch, tokens, queries, heads, head_size, levels, points),
        *(_TYPES[value.dtype], _TYPES[weights.dtype]),
    )
    return Call(arrays, output, arguments)


def invoke(function: str, *arguments: object) -> None:
    """Calls a function of the library that reports through a message.

    Raises:
        EngineError: no library, or what the function reported.
    """
    opened = _opened()
    if opened is None:
        raise EngineError(
            "deformable attention: the native library is not built", "install the package again with a C++ compiler"
        )
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    called: Callable[..., int] = getattr(opened, function)
    if called(*arguments, message, ctypes.c_int(_MESSAGE_BYTES)):
        raise EngineError(f"deformable attention: {message.value.decode()}")


@functools.cache
def _opened() -> ctypes.CDLL | None:
    path = native_path()
    return None if path is None else load(path)


def _run_rows(call: Call, isa: str, begin: int, end: int) -> None:
    invoke(
        "devil_msda_run",
        ctypes.byref(call.arguments),
        ctypes.c_int(ISAS[isa]),
        ctypes.c_int64(begin),
        ctypes.c_int64(end),
    )


def _array(name: str, array: np.ndarray, rank: int, dtypes: object) -> np.ndarray:
    if array.ndim != rank or array.dtype not in dtypes:
        raise EngineError(
            f"deformable attention: {name} must have {rank} dimensions and dtype "
            f"{' or '.join(str(dtype) for dtype in dtypes)}, got {array.dtype} of shape {array.shape}"
        )
    return np.ascontiguousarray(array)
