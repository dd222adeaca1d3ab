"""Parts of a model whose float32 weights lie in a file that the system pages, not in memory of the process."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from devil.errors import OutputError
from devil.model.checkpoint import Part, fill, weights_of
from devil.model.devil import DevilModel
from devil.model.weights import WeightSource


def fill_mapped(model: DevilModel, source: WeightSource, parts: Collection[Part], folder: Path) -> None:
    """Gives an empty model the weights of some parts, as `devil.model.checkpoint.fill` does, but maps them.

    Args:
        model: of `devil.model.fitting.empty_model`; what is left out stays without weights.
        folder: whose disk takes the file. It loses its name at once, so nothing is left when the process is killed.

    Raises:
        CheckpointError: a file is broken, or a weight holds values that are no numbers.
        OutputError: the file cannot be made, or the disk has no room for it.
    """
    sizes = [weight.numel() for weight in weights_of(model, parts).values()]
    memory = iter(_mapped(folder, sum(sizes)).split(sizes))
    fill(model, source, parts, lambda shape: next(memory).view(shape))
    model.requires_grad_(False)


def _mapped(folder: Path, count: int) -> Tensor:
    """So many float32 values in a nameless file of the folder's disk."""
    try:
        handle, name = tempfile.mkstemp(dir=folder, prefix=".devil-export-")
        try:
            _reserve(handle, 4 * count)
            return torch.from_file(name, shared=True, size=count, dtype=torch.float32)
        finally:
            os.close(handle)
            os.unlink(name)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot take {4 * count / 1e9:.1f} GB for a while ({error.strerror})",
            "free some space or choose another output path",
        ) from error


def _reserve(handle: int, size: int) -> None:
    """Takes the file's room on the disk now: a disk found full while mapped memory is written kills the process.

    Raises:
        OSError: there is not so much room.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # file systems without it answer one of these
            raise
