"""Training on annotated clips as the reference does (§5): answer tokens, and the detector through the RST."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from devil.clip import load_clip
from devil.config import DevilConfig, level_shapes
from devil.data.annotation import Record
from devil.evaluation.truth import segment_of, truth_of
from devil.model.devil import DevilModel
from devil.prompt import PromptWriter, image_answer, stvg_answer
from devil.training.detection import detection_loss
from devil.training.language import LanguageOutput, answer_loss, language_pass
from devil.training.losses import REFERENCE, LossWeights
from devil.training.packing import Packed, collate, pack_image, pack_video
from devil.video import probe


@dataclass(frozen=True)
class GroundingBatch:
    """One clip or image and one sentence.

    Attributes:
        packed: the dialogue, B = 1.
        patches: uint8 [F, P, 3·patch²]; positions: int64 [P, 2]; kept: bool [F, G], visual tokens in the prompt.
        frames: uint8 [N, H, W, 3], the sampled frames from the first to the last that has a box, for the detector; N
            may be 0.
        target: float32 [N, 4], cx, cy, w, h; present: bool [N], whether the frame has a box.
    """

    packed: Packed
    patches: Tensor
    positions: Tensor
    kept: Tensor
    frames: Tensor
    target: Tensor
    present: Tensor


def record_batch(record: Record, config: DevilConfig, writer: PromptWriter) -> GroundingBatch:
    """Loads what a record is about, with the truth that an evaluation of it would score.

    Raises:
        VideoError: the file cannot be read.
        AnnotationError: the event lies behind the file's end.
    """
    segment = segment_of(record, probe(record.path))
    clip = load_clip(record.path, config, segment=segment)
    truth = truth_of(record, clip.info, segment, clip.indices)
    kept = clip.kept.sum(1).tolist()
    if record.is_image:
        packed = pack_image(writer, kept[0], [(record.sentence, record.answer or image_answer())])
    else:
        packed = pack_video(writer, clip.times, kept, [(record.sentence, record.answer or stvg_answer(*truth.span))])
    has_box = ~np.isnan(truth.boxes).any(1)
    rows = np.flatnonzero(has_box)
    event = slice(rows[0], rows[-1] + 1) if rows.size else slice(0)
    return GroundingBatch(
        packed=collate([packed], sum(kept), config.language.vocab),
        patches=torch.from_numpy(clip.patches),
        positions=torch.from_numpy(clip.positions),
        kept=torch.from_numpy(clip.kept),
        frames=torch.from_numpy(clip.frames[event]),
        target=torch.from_numpy(centred(truth.boxes[event])),
        present=torch.from_numpy(has_box[event]),
    )


def centred(corners: np.ndarray) -> np.ndarray:
    """(x0, y0, x1, y1) → (cx, cy, w, h), float32, any leading shape."""
    low, high = corners[..., :2], corners[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], -1).astype(np.float32)


class GroundingObjective(nn.Module):
    """Answer cross-entropy, plus the detector's loss where `detects` (stages 1 and 3, not 2).

    The RST that the detector is trained with is the one that inference reads (`config.rst_position`): the state that
    predicts [BOX], or the state at [BOX]. The reference trains the second and infers with the first.
    """

    def __init__(self, model: DevilModel, detects: bool, weights: LossWeights = REFERENCE):
        super().__init__()
        self.model, self.detects, self.weights = model, detects, weights

    def forward(self, batch: GroundingBatch) -> dict[str, Tensor]:
        device = self.model.lm_head.weight.device
        visual = self.model.visual_tokens(batch.patches.to(device), batch.positions.to(device))
        output = language_pass(self.model, batch.packed, visual[batch.kept.to(device)])
        losses = {"answer": answer_loss(output, batch.packed)}
        if self.detects and len(batch.frames) and batch.packed.boxes[0] >= 0:
            losses["detector"] = self._detector_loss(rsts(self.model, output, batch.packed)[0], batch, device)
        return {"loss": sum(losses.values()), **losses}

    def _detector_loss(self, rst: Tensor, batch: GroundingBatch, device: torch.device) -> Tensor:
        detector = self.model.detector
        shapes = torch.tensor(level_shapes(*batch.frames.shape[1:3]))
        found = detector.ground(detector.features(batch.frames.to(device)), shapes, rst)
        return detection_loss(found, batch.target.to(device)[None], batch.present.to(device)[None], self.weights)


def rsts(model: DevilModel, output: LanguageOutput, packed: Packed) -> Tensor:
    """The RST of every question that has one, [Q, hidden], read where the config says."""
    places = packed.boxes[packed.boxes >= 0] - (model.devil.rst_position == "predict")
    return output.hidden.flatten(0, 1)[torch.from_numpy(places).to(output.hidden.device)]
