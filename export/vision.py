"""The vision graph: patches of equally sized frames → projected visual tokens."""

from __future__ import annotations

from torch import Tensor, nn

from devil.model.devil import DevilModel


class VisionGraph(nn.Module):
    """patches uint8 [F, P, 3·p·p], positions [P, 2] → visual tokens [F, P / merge², hidden] (reference §2.5)."""

    def __init__(self, model: DevilModel):
        super().__init__()
        self.tower, self.projector = model.model.vision_encoder, model.model.mm_projector

    def forward(self, patches: Tensor, positions: Tensor) -> Tensor:
        return self.projector(self.tower(patches, positions))
