"""Teaching the language side on synthetic clips: answers, and why they are right (auxiliary losses, training only).

Cross-entropy alone sticks at the constant answer at this size. The architecture stays DEViL's; what is added lives in
the loss: what each visual token shows and has just done, which tokens an answer's times are read from, and which shape
the RST stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devil.config import DevilConfig
from devil.data.dice import Dice
from devil.data.scene import Query
from devil.model.devil import DevilModel
from devil.prompt import PromptWriter, stvg_answer
from devil.training.gallery import gallery
from devil.training.heads import AppearanceHeads, EventHeads, HistoryHeads, QuestionHeads, ReferentHeads
from devil.training.hints import (
    event_labels,
    own_times,
    places_kept,
    sentence_words,
    shapes_before,
    some_owned,
    wanted_frames,
    wanted_shapes,
)
from devil.training.labels import TokenLabels
from devil.training.language import (
    LanguageOutput,
    answer_accuracy,
    answer_loss,
    attention_loss,
    attention_rows,
    language_pass,
)
from devil.training.mixing import UNMIXED, Mixture, draw_mixture, meant, name_tokens, said, shown
from devil.training.packing import Packed, collate, pack_video
from devil.training.samples import ClipSample, clip_sample, draw_shape, sample_of, unseen_sample
from devil.training.symbols import SymbolTokens

# An answer is `It happens from`, t0, `to`, t1, `seconds.`, [BOX], end. Counted from the place before it, which predicts
# its first token, t0 is predicted from place 1, t1 from place 3 and [BOX] from place 5.
START, END, RST = 1, 3, 5
ANSWER_LENGTH = 7
_HINTED = 24  # visual tokens per clip whose attention is supervised


@dataclass(frozen=True)
class TeachingBatch:
    """B clips with Q questions each.

    Attributes:
        samples, queries: the clips, and what is asked about each.
        packed: the questions as sequences.
        patches: uint8 [B·T, P, 3·patch²]; positions: int64 [P, 2]. Both None where symbols replace the pictures.
        labels: of all clips, arrays [B, T, G].
        mixtures: what the looks of each clip become (see devil.training.mixing).
        words: tokens of the colours' and of the outlines' names.
    """

    samples: list[ClipSample]
    queries: list[list[Query]]
    packed: Packed
    patches: Tensor | None
    positions: Tensor | None
    labels: TokenLabels
    mixtures: tuple[Mixture, ...]
    words: tuple[np.ndarray, np.ndarray]


def draw_teaching(
    number: int, config: DevilConfig, writer: PromptWriter, clips: int, questions: int, frames: int | None = None
) -> TeachingBatch:
    """Batch `number`: training clips of one picture size, `questions` sentences about each (some twice, if few)."""
    dice = Dice(f"teaching {number}")
    aspect, side = draw_shape(dice)
    samples = [clip_sample(number * clips + place, config, aspect, side, frames=frames) for place in range(clips)]
    return _asking(samples, questions, config, writer, dice)


def draw_symbols(
    number: int, config: DevilConfig, writer: PromptWriter, clips: int, questions: int, frames: int | None = None
) -> TeachingBatch:
    """As `draw_teaching`, without pictures."""
    dice = Dice(f"symbols {number}")
    aspect, side = draw_shape(dice)
    samples = [unseen_sample(number * clips + place, config, aspect, side, frames) for place in range(clips)]
    return _asking(samples, questions, config, writer, dice)


def draw_gallery(number: int, config: DevilConfig, writer: PromptWriter, pictures: int) -> TeachingBatch:
    """Batch `number` of pictures crowded with shapes, about which nothing is asked."""
    aspect, side = draw_shape(Dice(f"gallery batch {number}"))
    samples = [sample_of(gallery(number * pictures + place, side, aspect), config) for place in range(pictures)]
    return teaching_batch(samples, [[]] * pictures, config, writer)


def teaching_batch(
    samples: list[ClipSample],
    queries: list[list[Query]],
    config: DevilConfig,
    writer: PromptWriter,
    mixtures: Sequence[Mixture] = (),
) -> TeachingBatch:
    """Packs given questions about given clips of one size."""
    frames, tokens = samples[0].labels.owner.shape
    pictured = samples[0].patches.size > 0
    packed = []
    for sample, asked in zip(samples, queries, strict=True):
        dialogue = [(query.sentence, stvg_answer(*sample.clip.span(query))) for query in asked]
        packed.append(pack_video(writer, sample.clip.times, [tokens] * frames, dialogue))
    fields = TokenLabels.__dataclass_fields__
    labels = TokenLabels(*(np.stack([getattr(sample.labels, name) for sample in samples]) for name in fields))
    return TeachingBatch(
        samples=samples,
        queries=queries,
        packed=collate(packed, frames * tokens, config.language.vocab),
        patches=torch.from_numpy(np.concatenate([sample.patches for sample in samples])) if pictured else None,
        positions=torch.from_numpy(samples[0].positions) if pictured else None,
        labels=labels,
        mixtures=tuple(mixtures) or (UNMIXED,) * len(samples),
        words=name_tokens(writer),
    )


def _asking(
    samples: list[ClipSample], questions: int, config: DevilConfig, writer: PromptWriter, dice: Dice
) -> TeachingBatch:
    """Draws what is asked about each clip, and what its looks become; the first clip of a batch stays as it is."""
    queries = [_asked(sample.clip.queries, questions, dice) for sample in samples]
    mixtures = [draw_mixture(dice) if place else UNMIXED for place in range(len(samples))]
    return teaching_batch(samples, queries, config, writer, mixtures)


def _asked(pool: Sequence[Query], questions: int, dice: Dice) -> list[Query]:
    """Distinct sentences as far as there are any, in random order."""
    asked: list[Query] = []
    while len(asked) < questions:
        left = [query for query in pool if query not in asked] or pool
        asked.append(dice.choice(left))
    return asked


class TeachingObjective(nn.Module):
    """Answers, attention, appearance, history and the RST, weighted into one loss."""

    def __init__(self, model: DevilModel, referents: ReferentHeads, weights: dict[str, float]):
        super().__init__()
        hidden = model.devil.language.hidden
        self.model, self.referents, self.weights = model, referents, weights
        self.appearance = AppearanceHeads(hidden)
        self.history = HistoryHeads(hidden)
        self.questions = QuestionHeads(hidden)
        self.events = EventHeads(hidden)
        self.symbols = SymbolTokens(hidden)

    def forward(self, batch: TeachingBatch) -> dict[str, Tensor]:
        losses, _ = self.taught(batch)
        return losses | {"loss": self.total(losses)}

    def taught(self, batch: TeachingBatch) -> tuple[dict[str, Tensor], LanguageOutput | None]:
        """Unweighted losses by name, and the language model's pass where there are questions."""
        losses: dict[str, Tensor] = {}
        if batch.patches is None:
            table = self.symbols.noisy(batch.labels).flatten(0, 1)
        else:
            table = self.model.visual_tokens(batch.patches, batch.positions)  # [B·T, G, hidden]
            seen = table.view(*batch.labels.owner.shape, -1)
            losses |= self.appearance.losses(seen, batch.labels)
            losses["likeness"] = self.symbols.likeness_loss(seen, batch.labels)
        if not batch.queries[0]:
            return losses, None
        seen = self._mixed(table.view(*batch.labels.owner.shape, -1), batch)
        change = said(self.model.model.embed_tokens.weight, batch.packed.token_ids, batch.mixtures, batch.words)
        output = language_pass(self.model, batch.packed, seen.flatten(0, 2), change)
        return losses | self._language_losses(output, batch), output

    def _mixed(self, tokens: Tensor, batch: TeachingBatch) -> Tensor:
        clips = [sample.clip for sample in batch.samples]
        return shown(tokens, batch.labels.owner, clips, batch.mixtures, (self.symbols.colour, self.symbols.shape))

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum; losses without a weight are only logged."""
        return sum(self.weights.get(name, 0.0) * value for name, value in losses.items())

    def _language_losses(self, output: LanguageOutput, batch: TeachingBatch) -> dict[str, Tensor]:
        packed, clips = batch.packed, [sample.clip for sample in batch.samples]
        losses = {"answer": answer_loss(output, packed)}
        seen = visual_states(output, packed, batch.labels, layer=len(output.layers) // 2)
        times = np.stack([sample.clip.times for sample in batch.samples])
        losses |= self.history.losses(seen, batch.labels, times)
        deeper = visual_states(output, packed, batch.labels, layer=len(output.layers) - 1)
        losses |= self.events.losses(deeper, batch.labels.owner, *event_labels(clips, batch.labels.owner))
        answers = torch.from_numpy(packed.answers.reshape(len(clips), -1) % packed.segments.shape[1])
        last = len(output.layers) - 1
        shapes = wanted_shapes(packed, batch.labels.owner, clips, batch.queries)
        plain = np.repeat([mixture.plain for mixture in batch.mixtures], answers.shape[1])
        for name, offset, frame in (("first", START, "first"), ("last", END, "last")):
            rows = answers + offset
            mass = attention_rows(self.model, output, packed, last, rows)
            losses[f"read_{name}"] = attention_loss(mass[:, :2], wanted_frames(packed, batch.queries, frame))
            mass = attention_rows(self.model, output, packed, last - 1, rows)
            asked = output.layers[last - 1].gather(1, rows[..., None].expand(-1, -1, output.hidden.shape[-1]))
            losses[f"asked_{name}"] = self.questions.loss(asked.flatten(0, 1), list(chain(*batch.queries)), plain)
            losses[f"find_{name}"] = attention_loss(mass[:, :2], shapes)
        losses |= self._hint_losses(output, batch)
        losses["name"] = self._naming_loss(output, packed, answers + RST, shapes)
        losses["rst"] = self._rst_loss(output, answers + RST, batch)
        right = answer_accuracy(output, packed, ANSWER_LENGTH)
        losses["right_first"] = torch.tensor(right[:, START].mean())
        losses["right_last"] = torch.tensor(right[:, END].mean())
        return losses

    def _hint_losses(self, output: LanguageOutput, batch: TeachingBatch) -> dict[str, Tensor]:
        """Where visual tokens should look: at the time of their frame, and at their shape in the frame before."""
        rows = some_owned(batch.packed, batch.labels.owner, _HINTED)
        places = torch.from_numpy(rows)
        own, before = own_times(batch.packed, rows), shapes_before(batch.packed, batch.labels.owner, rows)
        first = attention_rows(self.model, output, batch.packed, 0, places)[:, :2]
        second = attention_rows(self.model, output, batch.packed, 1, places)
        kept = places_kept(batch.packed, batch.labels, rows)
        third = attention_rows(self.model, output, batch.packed, len(output.layers) - 2, places)[:, 2:]
        return {
            "own_time": attention_loss(first, own),
            "look_back": attention_loss(second[:, :2], before),
            "stay": attention_loss(second[:, 2:], kept),
            "look_again": attention_loss(third, before),
        }

    def _naming_loss(self, output: LanguageOutput, packed: Packed, rows: Tensor, shapes: Tensor) -> Tensor:
        """The RST should be composed of the sentence's words and of what the shape's tokens show, not remembered."""
        tokens = self.model.devil.tokens
        words = sentence_words(packed, rows.shape[1], tokens.query_start, tokens.query_end)
        mass = attention_rows(self.model, output, packed, len(output.layers) - 1, rows)[:, 2:]
        return attention_loss(mass, words | shapes)

    def _rst_loss(self, output: LanguageOutput, rows: Tensor, batch: TeachingBatch) -> Tensor:
        """Distance of the mapped RST from the oracle's text vector, in units of the oracle's spread."""
        rst = output.hidden.gather(1, rows[..., None].expand(-1, -1, output.hidden.shape[-1])).flatten(0, 1)
        mapped = self.model.detector.llm_feat_map(rst)
        questions = rows.shape[1]
        turned = [
            torch.stack([getattr(mixture, half) for mixture in batch.mixtures]).repeat_interleave(questions, 0)
            for half in ("colours", "shapes")
        ]
        colours, shapes = referents(batch)
        oracle = meant(self.referents.colour.weight, turned[0], colours)
        oracle = (oracle + meant(self.referents.shape.weight, turned[1], shapes)).detach()
        return F.mse_loss(mapped, oracle) / oracle.var().clamp(min=1e-6)


def referents(batch: TeachingBatch) -> tuple[Tensor, Tensor]:
    """Colour and shape of what each question is about, int64 [B·Q] each."""
    pairs = zip(batch.samples, batch.queries, strict=True)
    labels = [(s.clip.colours[q.target], s.clip.shapes[q.target]) for s, asked in pairs for q in asked]
    colours, shapes = torch.from_numpy(np.array(labels, np.int64)).unbind(1)
    return colours, shapes


def visual_states(output: LanguageOutput, packed: Packed, labels: TokenLabels, layer: int) -> Tensor:
    """The input of a decoder layer at the visual tokens, [B, T, G, hidden]."""
    clips, frames, tokens = labels.owner.shape
    places = np.flatnonzero(packed.is_visual[0])  # the same in every clip of a batch
    return output.layers[layer][:, torch.from_numpy(places)].view(clips, frames, tokens, -1)
