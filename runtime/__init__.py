"""Bundle, video and sentence to tube. Needs no torch, transformers or onnx."""
