"""Deformable attention through our CPU kernel in PyTorch, for inference that asks for it.

Off unless asked for, so that the model stays an independent reference for everything that runs the kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from devil import plugins

_wanted: ContextVar[bool] = ContextVar("native_attention", default=False)


@contextlib.contextmanager
def native_attention() -> Iterator[bool]:
    """Inside, deformable attention without gradients on the CPU runs the kernel, where its library is built.

    Yields:
        Whether it is; without it everything stays as it was.
    """
    token = _wanted.set(plugins.native_available())
    try:
        yield _wanted.get()
    finally:
        _wanted.reset(token)


def applies_to(value: Tensor, weights: Tensor) -> bool:
    """Whether the kernel was asked for and can compute this."""
    if not _wanted.get() or value.device.type != "cpu" or value.shape[-1] % 8:
        return False
    return not (torch.is_grad_enabled() and (value.requires_grad or weights.requires_grad))


@torch.library.custom_op("devil::deformable_attention", mutates_args=(), device_types="cpu")
def native_deformable_attention(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """As `attention.deformable_attention`; value float32, float16 or bfloat16."""
    arrays = (_as_numpy(tensor) for tensor in (value, spatial_shapes, locations, weights))
    output = plugins.numpy_op(*arrays, threads=torch.get_num_threads())
    if value.dtype == torch.bfloat16:
        return torch.from_numpy(output.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(output)


@native_deformable_attention.register_fake
def _(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG001
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


def _as_numpy(tensor: Tensor) -> np.ndarray:
    """The kernel takes bfloat16, which NumPy lacks, as its bits."""
    tensor = tensor.detach().contiguous()
    return tensor.view(torch.int16).numpy().view(np.uint16) if tensor.dtype == torch.bfloat16 else tensor.numpy()
