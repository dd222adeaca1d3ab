"""The joint stage on synthetic clips: language and detector together, the detector asked through the RST."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from devil.config import level_shapes
from devil.data.dice import Dice
from devil.training.detection import detection_loss
from devil.training.grounding import centred, rsts
from devil.training.language import LanguageOutput
from devil.training.losses import REFERENCE, LossWeights
from devil.training.teaching import TeachingBatch, TeachingObjective
from devil.training.warmup import best_iou


@dataclass(frozen=True)
class TubeWindow:
    """T successive frames of each of B of a batch's clips, and what is to be found in them.

    Attributes:
        question: int64 [B], the question's number among all of the batch.
        frames: uint8 [B·T, H, W, 3].
        target: [B, T, 4] cx, cy, w, h; present: bool [B, T], inside the true span and visible.
    """

    question: Tensor
    frames: Tensor
    target: Tensor
    present: Tensor


def draw_window(batch: TeachingBatch, length: int, dice: Dice) -> TubeWindow:
    """For each clip that stays as it is one of its questions, and a window that overlaps its true span as
    far as it can: the detector sees the clips as they are.
    """
    questions, frames, targets, present = [], [], [], []
    for place, (sample, asked) in enumerate(zip(batch.samples, batch.queries, strict=True)):
        if not batch.mixtures[place].plain:
            continue
        number = dice.integer(0, len(asked) - 1)
        query, clip = asked[number], sample.clip
        latest = min(max(query.last - length + 1, query.first), len(clip.times) - length)
        start = dice.integer(min(query.first, latest), latest)
        rows = np.arange(start, start + length)
        questions.append(place * len(asked) + number)
        frames.append(sample.frames[rows])
        targets.append(centred(clip.boxes[query.target, rows]))
        present.append((clip.inside(query) & clip.visible[query.target])[rows])
    return TubeWindow(
        question=torch.tensor(questions),
        frames=torch.from_numpy(np.concatenate(frames)),
        target=torch.from_numpy(np.stack(targets)),
        present=torch.from_numpy(np.stack(present)),
    )


class JointObjective(nn.Module):
    """Everything that is taught, plus the detector's loss on a window of the tube.

    Args:
        window: frames of each clip that the detector sees.
        detector_weight: of the detector's loss against the others.
    """

    def __init__(
        self, teaching: TeachingObjective, window: int, detector_weight: float, weights: LossWeights = REFERENCE
    ):
        super().__init__()
        self.teaching, self.window = teaching, window
        self.detector_weight, self.weights = detector_weight, weights

    def forward(self, batch: TeachingBatch) -> dict[str, Tensor]:
        losses, output = self.teaching.taught(batch)
        losses |= self._detector_losses(output, batch)
        total = self.teaching.total(losses) + self.detector_weight * losses["detector"]
        return losses | {"loss": total}

    def _detector_losses(self, output: LanguageOutput, batch: TeachingBatch) -> dict[str, Tensor]:
        model = self.teaching.model
        window = draw_window(batch, self.window, Dice(f"window {batch.samples[0].clip.scene.name}"))
        rst = rsts(model, output, batch.packed)[window.question].repeat_interleave(self.window, 0)
        shapes = torch.tensor(level_shapes(*window.frames.shape[1:3]))
        found = model.detector.ground(model.detector.features(window.frames), shapes, rst)
        loss = detection_loss(found, window.target, window.present, self.weights)
        seen = window.present.flatten()
        iou = best_iou(found.logits[seen], found.boxes[seen], window.target.flatten(0, 1)[seen])
        return {"detector": loss, "iou": iou}
