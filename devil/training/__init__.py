"""Training of the model, in PyTorch."""
