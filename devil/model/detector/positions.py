"""Where things lie: flattened positions, sine embeddings, sampling locations and boxes, all in float32.

Each computation is a module without parameters, so that whoever lowers the precision of a graph can recognise it and
leave it alone: half precision places a sampling point up to an eighth of a pixel off.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

BOX_TEMPERATURE = 10000.0  # of the decoder's sine embedding
ANCHOR_SIZE = 0.05  # side of a proposal's anchor on the first level; doubles with every level
ANCHOR_MARGIN = 0.01  # anchors closer than this to the frame's border make no proposal
OUTSIDE = 1e4  # un-sigmoided coordinate of a proposal that was ruled out: its sigmoid is exactly 1
SIGMOID_EPS = 1e-3


class Grid(NamedTuple):
    """The L flattened positions of all levels, one level after another, each row by row."""

    cells: Tensor  # [L, 2] f32: (column, row) inside the level
    sizes: Tensor  # [L, 2] f32: (width, height) of the level
    centers: Tensor  # [L, 2] f32: (x, y) of the position's centre as fractions of the frame
    level: Tensor  # [L] int64


class FlatGrid(nn.Module):
    """Finds every flattened position by arithmetic, so that level shapes may be a graph's input."""

    def forward(self, level_shapes: Tensor, features: Tensor) -> Grid:
        """From level_shapes int64 [levels, 2] of (height, width) and features [N, L, C]."""
        shapes = level_shapes.to(features.device)
        areas = shapes[:, 0] * shapes[:, 1]
        starts = areas.cumsum(0) - areas
        index = torch.arange(features.shape[1], device=features.device)
        level = (index[:, None] >= starts[None, :]).sum(1) - 1  # [L]
        width = shapes[level, 1]
        local = index - starts[level]
        row = local // width
        cells = torch.stack((local - row * width, row), -1).float()
        sizes = shapes[level].flip(-1).float()
        return Grid(cells, sizes, (cells + 0.5) / sizes, level)


class LevelPositions(nn.Module):
    """Sine embedding of each position, normalised to 2π per level, plus the level's learned embedding."""

    def __init__(self, hidden: int, temperature: float):
        super().__init__()
        self.hidden = hidden
        self.temperature = temperature

    def forward(self, grid: Grid, level_embed: Tensor) -> Tensor:
        """[L, C] in the dtype of level_embed [levels, C]."""
        angles = (grid.cells + 1) / (grid.sizes + 1e-6) * (2 * math.pi)
        waves = sine_embedding(angles.flip(-1), self.hidden // 2, self.temperature)  # rows before columns
        return (waves + level_embed.float()[grid.level]).to(level_embed.dtype)


class BoxPositions(nn.Module):
    """Sine embedding of boxes: hidden/2 values each for y, x, w and h."""

    def __init__(self, hidden: int):
        super().__init__()
        self.hidden = hidden

    def forward(self, boxes: Tensor) -> Tensor:
        """[N, Q, 2·hidden] f32 from boxes [N, Q, 4] (cx, cy, w, h)."""
        x, y, size = boxes[..., 0:1], boxes[..., 1:2], boxes[..., 2:]
        return sine_embedding(torch.cat((y, x, size), -1).float() * (2 * math.pi), self.hidden // 2, BOX_TEMPERATURE)


class PointLocations(nn.Module):
    """Sampling locations around points: offsets count cells of the sampled level."""

    def forward(self, offsets: Tensor, points: Tensor, level_shapes: Tensor) -> Tensor:
        """[N, L, heads, levels, points, 2] f32 in 0–1, from offsets of that shape and points [L, 2].

        Works on whole rows: broadcasting over a last axis of two is several times slower in ONNX Runtime.
        """
        heads, levels, count = offsets.shape[2:5]
        cells = 1 / level_shapes.to(offsets.device).flip(-1).float()  # (width, height) of one, [levels, 2]
        cells = cells[:, None, :].expand(levels, count, 2).reshape(-1).repeat(heads)  # [heads·levels·points·2]
        origins = points.repeat(1, heads * levels * count)  # [L, heads·levels·points·2]
        return (origins + offsets.float().flatten(2) * cells).view(offsets.shape)


class BoxLocations(nn.Module):
    """Sampling locations around boxes: the number of points in offsets reaches half a side."""

    def forward(self, offsets: Tensor, boxes: Tensor, _level_shapes: Tensor) -> Tensor:
        """[N, Q, heads, levels, points, 2] f32 in 0–1, from offsets of that shape and boxes [N, Q, 4]."""
        boxes = boxes.float()[:, :, None, None, None, :]
        return boxes[..., :2] + offsets.float() * boxes[..., 2:] * (0.5 / offsets.shape[4])


class ProposalAnchors(nn.Module):
    """One anchor per position, un-sigmoided, and whether it may become a proposal."""

    def forward(self, grid: Grid) -> tuple[Tensor, Tensor]:
        """anchors [L, 4] f32 (cx, cy, w, h before the sigmoid) and valid [L, 1] bool."""
        side = ANCHOR_SIZE * torch.exp2(grid.level.float())[:, None]
        anchors = torch.cat((grid.centers, side, side), -1)
        inside = (anchors > ANCHOR_MARGIN) & (anchors < 1 - ANCHOR_MARGIN)
        valid = inside.all(-1, keepdim=True)
        return torch.where(valid, torch.log(anchors / (1 - anchors)), OUTSIDE), valid


class RefineBoxes(nn.Module):
    """Moves boxes by un-sigmoided deltas."""

    def forward(self, delta: Tensor, boxes: Tensor) -> Tensor:
        """[N, Q, 4] f32 from delta and boxes [N, Q, 4] (cx, cy, w, h in 0–1)."""
        return torch.sigmoid(delta.float() + inverse_sigmoid(boxes.float()))


class ProposalBoxes(nn.Module):
    """Moves anchors, which are not sigmoided yet, by un-sigmoided deltas."""

    def forward(self, delta: Tensor, anchors: Tensor) -> Tensor:
        """[N, Q, 4] f32 (cx, cy, w, h in 0–1) from delta and anchors [N, Q, 4]."""
        return torch.sigmoid(delta.float() + anchors)


def sine_embedding(angles: Tensor, count: int, temperature: float) -> Tensor:
    """[..., n·count] from angles [..., n]: per angle, count/2 frequencies, each as (sin, cos)."""
    exponents = torch.arange(count // 2, dtype=torch.float32, device=angles.device) * (2 / count)
    phases = angles[..., None] / temperature**exponents
    return torch.stack((phases.sin(), phases.cos()), -1).flatten(-3)


def inverse_sigmoid(values: Tensor) -> Tensor:
    """logit(values), with both sides kept at least SIGMOID_EPS from zero."""
    return torch.log(values.clamp(min=SIGMOID_EPS) / (1 - values).clamp(min=SIGMOID_EPS))
