"""Grounding with the PyTorch model: the reference that the runtime is compared with, and what evaluation runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from devil.answer import Span, parse_span
from devil.clip import Clip
from devil.config import level_shapes
from devil.model.devil import DevilModel
from devil.prompt import PromptWriter
from devil.tube import Detections, SlotTracker

_BATCH = 16  # detector frames at a time


@dataclass(frozen=True)
class TorchAnswer:
    """What the model says of one sentence.

    Attributes:
        text: the answer.
        span: as told, or None.
        rst: float32 [hidden], or None where the answer has no [BOX].
        rows: int [R], rows of the clip's frames in the tube; empty without [BOX].
        boxes: float32 [R, 4], cx, cy, w, h as fractions of the frame.
        scores: float32 [R]
        track: float32 [U, 4], the same slot's boxes in every row of the clip's frames; empty without [BOX].
    """

    text: str
    span: Span | None
    rst: np.ndarray | None
    rows: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    track: np.ndarray


class TorchGrounder:
    """Answers sentences about a clip with the PyTorch model, written as plainly as possible.

    Args:
        model: in evaluation mode.
        writer: of the same checkpoint.
    """

    def __init__(self, model: DevilModel, writer: PromptWriter):
        self.model, self.writer = model, writer

    @torch.no_grad()
    def ground(self, clip: Clip, sentence: str) -> TorchAnswer:
        """Vision, language, detector and linker on one clip and one sentence, from nothing."""
        visual = self.model.visual_tokens(torch.from_numpy(clip.patches), torch.from_numpy(clip.positions))
        visual = visual[torch.from_numpy(clip.kept)]  # [V, hidden]
        token_ids, rst = self._answer(self._prompt(clip, sentence), visual)
        text = self.writer.decode(token_ids)
        span = None if clip.info.is_image else parse_span(text)
        if rst is None:
            nothing = np.zeros((0, 4), np.float32)
            return TorchAnswer(text, span, None, np.zeros(0, int), nothing, nothing[:, 0], nothing)
        rows = clip.rows_in_span(span)
        boxes, scores = self._track(clip.frames, rst).track(rows)
        return TorchAnswer(text, span, rst.numpy(), rows, boxes[rows], scores[rows], boxes)

    def _prompt(self, clip: Clip, sentence: str) -> list[int]:
        kept = clip.kept.sum(1).tolist()
        is_image = clip.info.is_image
        prefix = self.writer.image_prefix(kept[0]) if is_image else self.writer.video_prefix(clip.times, kept)
        return prefix + self.writer.instruction(sentence, is_image)

    def _answer(self, prompt: list[int], visual: Tensor) -> tuple[list[int], Tensor | None]:
        """Greedy decoding by transformers' own `generate`; then the RST from one pass over the whole sequence."""
        config = self.model.devil
        ids = torch.tensor([prompt])
        generated = self.model.generate(
            inputs_embeds=self.model.embed(ids, visual),
            attention_mask=torch.ones_like(ids),
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            eos_token_id=config.tokens.end,
            pad_token_id=config.tokens.end,
        )[0].tolist()
        if config.tokens.box not in generated:
            return generated, None
        position = len(prompt) + generated.index(config.tokens.box) - (config.rst_position == "predict")
        sequence = torch.tensor([prompt + generated])
        hidden = self.model.model(inputs_embeds=self.model.embed(sequence, visual)).last_hidden_state
        return generated, hidden[0, position].float()

    def _track(self, frames: np.ndarray, rst: Tensor) -> SlotTracker:
        shapes = torch.tensor(level_shapes(*frames.shape[1:3]))
        tracker = SlotTracker()
        for start in range(0, len(frames), _BATCH):
            features = self.model.detector.features(torch.from_numpy(frames[start : start + _BATCH]))
            found = self.model.detector.ground(features, shapes, rst)
            tracker.add(Detections(found.logits.numpy(), found.boxes.numpy(), found.embeddings.numpy()))
        return tracker
