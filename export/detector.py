"""The detector's two graphs, cut where the frames' share of the work ends and the sentence's begins."""

from __future__ import annotations

from torch import Tensor, nn

from devil.model.detector import Detector, attention, detector, positions, proposals

# Positions, boxes and scores lose what half precision rounds off; statistics overflow.
_FULL = (
    detector.Normalise,
    attention.Softmax,
    positions.FlatGrid,
    positions.LevelPositions,
    positions.BoxPositions,
    positions.PointLocations,
    positions.BoxLocations,
    positions.ProposalAnchors,
    positions.ProposalBoxes,
    positions.RefineBoxes,
    proposals.TextLogits,
    proposals.KeepScores,
)
FULL_MODULES = tuple(f"{module.__module__}.{module.__qualname__}" for module in _FULL)


class BackboneGraph(nn.Module):
    """frames uint8 [N, H, W, 3] → features [N, L, C]."""

    def __init__(self, model: Detector):
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        return self.model.features(frames)


class GrounderGraph(nn.Module):
    """features [N, L, C], level_shapes [levels, 2], rst [hidden] → logits, boxes and embeddings of the last layer.

    Args:
        model: the detector.
        level_shapes: fixes the level shapes; the input of that name is then not read.
    """

    def __init__(self, model: Detector, level_shapes: Tensor | None = None):
        super().__init__()
        self.model = model
        self.register_buffer("level_shapes", level_shapes, persistent=False)

    def forward(self, features: Tensor, level_shapes: Tensor, rst: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        level_shapes = level_shapes if self.level_shapes is None else self.level_shapes
        found = self.model.ground(features, level_shapes, rst)
        return found.logits, found.boxes, found.embeddings
