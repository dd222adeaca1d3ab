"""Multi-scale deformable attention: the one custom operator and its lowerings.

`library()` is the native library for ONNX Runtime (None: graphs run their function body), `cuda_library()` the one for
its CUDA provider; `lowering()` says which of the two runs on the CPU, and `numpy_op` calls the CPU kernel on arrays.
"""

from devil.plugins.loader import cuda_library, library, lowering
from devil.plugins.native import native_available, numpy_op

__all__ = ["cuda_library", "library", "lowering", "native_available", "numpy_op"]
