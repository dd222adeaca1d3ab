"""Multi-scale deformable attention: the one custom operator and its lowerings.

`library()` is the native library for ONNX Runtime (None: graphs run their function body), `lowering()` says which of
the two runs, and `numpy_op` calls the CPU kernel on arrays.
"""

from devil.plugins.loader import library, lowering
from devil.plugins.native import native_available, numpy_op

__all__ = ["library", "lowering", "native_available", "numpy_op"]
