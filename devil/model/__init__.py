"""The PyTorch model."""
