"""Attention blocks: deformable attention, and plain multi-head attention in published key names."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devil.model.detector import native

OPERATOR = "devil::MultiScaleDeformableAttention"


class Softmax(nn.Module):
    """Softmax over the last dimension in float32; the caller casts back."""

    def forward(self, scores: Tensor) -> Tensor:
        return scores.float().softmax(-1)


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention (Deformable DETR, section 4.1).

    Args:
        locate: module that turns (offsets, references, level_shapes) into sampling locations.
    """

    def __init__(self, hidden: int, heads: int, levels: int, points: int, locate: nn.Module):
        super().__init__()
        self.sizes = (heads, levels, points)
        self.sampling_offsets = nn.Linear(hidden, heads * levels * points * 2)
        self.attention_weights = nn.Linear(hidden, heads * levels * points)
        self.value_proj = nn.Linear(hidden, hidden)
        self.output_proj = nn.Linear(hidden, hidden)
        self.locate = locate
        self.softmax = Softmax()

    def reset_parameters(self) -> None:
        """Point p of head h starts p + 1 cells away in direction h; all points weigh the same."""
        heads, levels, points = self.sizes
        angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
        directions = torch.stack((angles.cos(), angles.sin()), -1)
        directions = directions / directions.abs().amax(-1, keepdim=True)  # onto the unit square
        steps = torch.arange(1, points + 1, dtype=torch.float32)
        offsets = directions[:, None, None, :] * steps[:, None]  # [heads, 1, points, 2]
        for linear in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(heads, levels, points, 2).reshape(-1))
        for linear in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, query: Tensor, value: Tensor, references: Tensor, level_shapes: Tensor) -> Tensor:
        """[N, Q, C] from query [N, Q, C], value [N, L, C] and whatever references `locate` understands."""
        heads, levels, points = self.sizes
        count, queries, hidden = query.shape
        offsets = self.sampling_offsets(query).view(count, queries, heads, levels, points, 2)
        weights = self.attention_weights(query).view(count, queries, heads, levels * points)
        weights = self.softmax(weights).to(query.dtype).view(count, queries, heads, levels, points)
        values = self.value_proj(value).view(count, value.shape[1], heads, hidden // heads)
        locations = self.locate(offsets, references, level_shapes)
        return self.output_proj(deformable_attention(values, level_shapes, locations, weights))


class MultiheadAttention(nn.Module):
    """Multi-head attention with torch.nn.MultiheadAttention's parameters, as two plain matrix products.

    Torch's fused attention is slow to differentiate on a CPU and does not return the weights that query decay reads.
    """

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * hidden))
        self.out_proj = nn.Linear(hidden, hidden)
        self.softmax = Softmax()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of `query` (also the keys) over itself.

        Returns:
            output [N, n, C], and weights [N, heads, n (attending), n (attended)] in float32.
        """
        count, length, hidden = query.shape
        projections = F.linear(query, self.in_proj_weight[: 2 * hidden], self.in_proj_bias[: 2 * hidden])
        q, k = projections.view(count, length, 2, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        v = self._values(value).view(count, length, self.heads, hidden // self.heads).transpose(1, 2)
        weights = self.softmax((q * (hidden // self.heads) ** -0.5) @ k.transpose(-1, -2))
        mixed = (weights.to(v.dtype) @ v).transpose(1, 2).reshape(count, length, hidden)
        return self.out_proj(mixed), weights

    def attend_one(self, token: Tensor) -> Tensor:
        """Attention over one single token [..., C]: its weight is always 1, so queries and keys do not matter."""
        return self.out_proj(self._values(token))

    def _values(self, value: Tensor) -> Tensor:
        hidden = value.shape[-1]
        return F.linear(value, self.in_proj_weight[2 * hidden :], self.in_proj_bias[2 * hidden :])


def deformable_attention(value: Tensor, spatial_shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples of `value`; outside the maps is zero, cells' centres lie at (i + 0.5) / size.

    Under an ONNX export this becomes one node of the operator devil::MultiScaleDeformableAttention; inside
    `native.native_attention` inference runs the CPU kernel.

    Args:
        value: [N, S, heads, dim], levels one after another.
        spatial_shapes: int64 [levels, 2] of (height, width), best on the CPU, where reading it waits for no GPU.
        locations: float32 [N, Q, heads, levels, points, 2] of (x, y) in 0–1.
        weights: [N, Q, heads, levels, points].

    Returns:
        [N, Q, heads·dim] in the dtype of value.
    """
    if not (torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting()):
        if native.applies_to(value, weights):
            return native.native_deformable_attention(value, spatial_shapes, locations, weights)
        return _sampled(value, spatial_shapes.tolist(), locations, weights)
    return torch.onnx.ops.symbolic(
        OPERATOR,
        (value, spatial_shapes, locations, weights),
        dtype=value.dtype,
        shape=(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3]),
        version=1,
    )


def _sampled(value: Tensor, shapes: list[list[int]], locations: Tensor, weights: Tensor) -> Tensor:
    count, _, heads, dim = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = (2 * locations.float() - 1).permute(3, 0, 2, 1, 4, 5)  # [levels, N, heads, Q, points, 2]
    shares = weights.float().permute(3, 0, 2, 1, 4)  # [levels, N, heads, Q, points]
    total = value.new_zeros(count * heads, dim, queries, dtype=torch.float32)
    levels = value.split([height * width for height, width in shapes], 1)
    for (height, width), level, grid, share in zip(shapes, levels, grids, shares, strict=True):
        maps = level.permute(0, 2, 3, 1).reshape(count * heads, dim, height, width).float()
        samples = F.grid_sample(maps, grid.flatten(0, 1), align_corners=False)  # [N·heads, dim, Q, points]
        total = total + (samples * share.reshape(count * heads, 1, queries, points)).sum(-1)
    return total.view(count, heads * dim, queries).transpose(1, 2).to(value.dtype)
