"""Tensors that stay where they are from run to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Bound:
    """Inputs and outputs that are neither fed nor read.

    Attributes:
        addresses: of all of them, on the device.
        shapes: of the inputs among them.
        sizes: their dimensions that no other input has, by the contract's names.
    """

    addresses: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)


NOTHING_BOUND = Bound()
