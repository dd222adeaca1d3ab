"""Engines from a bundle's graphs. Needs no PyTorch, so that the machine that runs a bundle can build for it."""
