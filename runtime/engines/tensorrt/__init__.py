"""Engines built by `devil-build`, run by TensorRT or TensorRT for RTX on memory of pycuda."""
