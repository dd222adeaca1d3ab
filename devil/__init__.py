"""DEViL: what the model is. Modules at this level need neither torch nor transformers nor onnx."""
