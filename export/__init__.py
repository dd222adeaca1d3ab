"""Checkpoint to bundle: one module per graph, ONNX passes, precision, verification."""
