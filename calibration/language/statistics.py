"""What is remembered of what flows into a linear layer: enough to weigh the errors of its rounded weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from devil.errors import CalibrationError

_STRETCH = 4096  # rows that are multiplied together


class InputStatistics:
    """Of inputs [n, K], told piece by piece.

    Attributes:
        weight: of all rows so far.
        moment: weighted sum of x xᵀ over the rows, float32 [K, K].
        size: weighted sum of |x|, float64 [K].
    """

    def __init__(self, width: int):
        self.weight = 0.0
        self.moment = torch.zeros(width, width)
        self.size = torch.zeros(width, dtype=torch.float64)

    def add(self, rows: Tensor, weight: float = 1.0) -> None:
        """
        Args:
            rows: float32 [n, K].
            weight: of each of them.
        """
        self.weight += weight * len(rows)
        self.size += weight * rows.abs().sum(0, dtype=torch.float64)
        for part in rows.split(_STRETCH):
            self.moment.addmm_(part.T, part, alpha=weight)

    def add_read(self, rows: Tensor, asked: Tensor) -> None:
        """The inputs of one pass; the few tokens that are read out, which become words and RSTs, weigh as much as all
        others together.

        Args:
            rows: float32 [n, K].
            asked: which of them are read out.
        """
        self.add(rows)
        self.add(rows[asked], len(rows) / max(len(asked), 1))

    def check(self, name: str) -> None:
        """
        Raises:
            CalibrationError: what flows into the layer of this name is no number.
        """
        if not torch.isfinite(self.moment).all():
            raise CalibrationError(f"the input of {name} has values that are no numbers", "export again in fp32")

    @property
    def mean_size(self) -> Tensor:
        """Mean |x| of each input, float32 [K]."""
        return (self.size / max(self.weight, 1e-30)).float()

    @property
    def mean_moment(self) -> Tensor:
        """Mean of x xᵀ, float32 [K, K]."""
        return self.moment / max(self.weight, 1e-30)


def relative_error(rounded: Tensor, weight: Tensor, moment: Tensor) -> float:
    """Error of the outputs that a rounded weight gives, root mean square over the size of the outputs.

    Args:
        rounded, weight: [N, K].
        moment: mean of x xᵀ [K, K].
    """
    size = output_error(weight, moment)
    return math.sqrt(max(output_error(rounded - weight, moment), 0.0) / size) if size > 0 else 0.0


def output_error(difference: Tensor, moment: Tensor) -> float:
    """Mean squared error that weights off by `difference` [N, K] cause in the outputs, summed over these.

    Args:
        moment: mean of x xᵀ [K, K].
    """
    return float((difference @ moment * difference).sum())
