"""Detector warm-up on single frames: the sentence is replaced by an oracle text vector for a colour and a shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from devil.config import DevilConfig, level_shapes
from devil.data.dice import Dice
from devil.data.shapes import COLOURS, SHAPES
from devil.model.detector.detector import Detector, DetectorOutput
from devil.training.boxes import overlaps
from devil.training.detection import detection_loss
from devil.training.grounding import centred
from devil.training.heads import ReferentHeads
from devil.training.losses import LossWeights
from devil.training.samples import clip_sample, draw_shape

QUIET = 0.1  # what is left of the text vector's length at the start
WARMUP_WEIGHTS = LossWeights(focal=2.0, l1=5.0, giou=2.0)


@dataclass(frozen=True)
class FrameBatch:
    """N frames uint8 [N, H, W, 3], one shape to find in each: target [N, 4] cx, cy, w, h, and labels int64 [N]."""

    frames: Tensor
    target: Tensor
    colours: Tensor
    shapes: Tensor


def draw_frames(number: int, config: DevilConfig, clips: int, frames: int) -> FrameBatch:
    """Batch `number`: clips of `frames` frames each, all of one size; a visible shape is drawn for each frame."""
    dice = Dice(f"frames {number}")
    aspect, side = draw_shape(dice)
    parts: list[tuple[np.ndarray, ...]] = []
    for place in range(clips):
        sample = clip_sample(number * clips + place, config, aspect, side, frames=frames)
        clip = sample.clip
        when = np.flatnonzero(clip.visible.any(0))
        who = np.array([dice.choice(np.flatnonzero(clip.visible[:, frame])) for frame in when], int)
        parts.append((sample.frames[when], centred(clip.boxes[who, when]), clip.colours[who], clip.shapes[who]))
    return FrameBatch(*(torch.from_numpy(np.concatenate(values)) for values in zip(*parts, strict=True)))


class WarmupObjective(nn.Module):
    """Find a shape by its oracle text vector.

    Args:
        blur: 0 for exact vectors; larger values blur them, up to about 0.5.
    """

    def __init__(self, detector: Detector, blur: float = 0.0):
        super().__init__()
        self.blur = blur
        self.detector = detector
        self.referents = ReferentHeads(detector.config.hidden)
        with (
            torch.no_grad()
        ):  # scores begin near zero; from scores of ± 10 the focal loss takes hundreds of steps to recover
            detector.transformer.encoder.text_layers[-1].norm2.weight.mul_(QUIET)

    def detect(self, batch: FrameBatch) -> DetectorOutput:
        text = self.referents(batch.colours, batch.shapes)
        return detect_text(self.detector, batch.frames, self._blurred(text) if self.blur else text)

    def _blurred(self, text: Tensor) -> Tensor:
        """Text vectors as a language model might give them: leaning towards another colour and shape, and noisy."""
        count = len(text)
        others = self.referents(
            torch.randint(len(COLOURS), (count,), device=text.device),
            torch.randint(len(SHAPES), (count,), device=text.device),
        )
        lean = self.blur * torch.rand(count, 1, device=text.device)
        noise = torch.randn_like(text) * text.std() * self.blur * torch.rand(count, 1, device=text.device)
        return (1 - lean) * text + lean * others + noise

    def forward(self, batch: FrameBatch) -> dict[str, Tensor]:
        found = self.detect(batch)
        target = batch.target[:, None]
        loss = detection_loss(found, target, torch.ones(target.shape[:2], dtype=torch.bool), WARMUP_WEIGHTS)
        return {"loss": loss, "iou": best_iou(found.logits, found.boxes, batch.target)}


def detect_text(detector: Detector, frames: Tensor, text: Tensor) -> DetectorOutput:
    """The detector on frames [N, H, W, 3] with text vectors [N, C], which usually come from the RST."""
    shapes = torch.tensor(level_shapes(*frames.shape[1:3]))
    return detector.transformer(detector.features(frames), text, shapes, detector.bbox_embed[0])


@torch.no_grad()
def best_iou(logits: Tensor, boxes: Tensor, target: Tensor) -> Tensor:
    """Mean IoU of the most confident box of each frame, logits [N, Q] and boxes [N, Q, 4], with its target [N, 4]."""
    best = logits.argmax(1)[:, None, None].expand(-1, 1, 4)
    return overlaps(boxes.gather(1, best)[:, 0], target)[0].mean()
