"""Grounding DINO (arXiv 2303.05499) with the language model's RST as its one text token, and with query decay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from devil.config import DetectorConfig
from devil.errors import DevilError
from devil.model.detector.attention import DeformableAttention
from devil.model.detector.decoder import Decoder, LayerOutput
from devil.model.detector.encoder import Encoder, FusionAttention
from devil.model.detector.positions import FlatGrid, Grid, ProposalAnchors, ProposalBoxes
from devil.model.detector.proposals import Mlp, Proposals, TextLogits, take
from devil.model.detector.published import merge_copies
from devil.model.detector.swin import Swin


@dataclass(frozen=True)
class DetectorOutput:
    """What the detector finds in N frames.

    Attributes:
        layers: one output per decoder layer, each of the queries alive after it; the last is the answer.
        proposals: the encoder's best positions, before the decoder.
    """

    layers: tuple[LayerOutput, ...]
    proposals: Proposals

    @property
    def logits(self) -> Tensor:
        """[N, Q'] f32, match with the sentence before the sigmoid."""
        return self.layers[-1].logits

    @property
    def boxes(self) -> Tensor:
        """[N, Q', 4] f32, cx, cy, w, h as fractions of the frame."""
        return self.layers[-1].boxes

    @property
    def embeddings(self) -> Tensor:
        """[N, Q', C] f32, query states for the linker."""
        return self.layers[-1].embeddings


class Normalise(nn.Module):
    """uint8 RGB frames to normalised float32 images."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.mean = [255 * mean for mean in config.mean]
        self.std = [255 * std for std in config.std]

    def forward(self, frames: Tensor) -> Tensor:
        """[N, 3, H, W] from frames [N, H, W, 3]."""
        mean, std = frames.new_tensor([self.mean, self.std], dtype=torch.float32).unbind(0)
        return ((frames.float() - mean) / std).permute(0, 3, 1, 2)


class Transformer(nn.Module):
    """Encoder, proposal selection and decoder."""

    def __init__(self, config: DetectorConfig):
        super().__init__()
        hidden = config.hidden
        self.queries = config.queries
        self.level_embed = nn.Parameter(torch.empty(config.levels, hidden))
        self.encoder = Encoder(config)
        self.enc_output = nn.Linear(hidden, hidden)
        self.enc_output_norm = nn.LayerNorm(hidden)
        self.enc_out_bbox_embed = box_head(hidden)
        self.tgt_embed = nn.Embedding(config.queries, hidden)
        self.decoder = Decoder(config)
        self.grid = FlatGrid()
        self.anchors = ProposalAnchors()
        self.proposal_boxes = ProposalBoxes()
        self.proposal_scores = TextLogits()
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """As published: Xavier for every matrix, then what some modules want otherwise."""
        last = self.enc_out_bbox_embed.layers[-1].weight
        for parameter in self.parameters():
            if parameter.dim() > 1 and parameter is not last:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, (DeformableAttention, FusionAttention)):
                module.reset_parameters()
        nn.init.normal_(self.level_embed)

    def forward(self, features: Tensor, text: Tensor, level_shapes: Tensor, head: nn.Module) -> DetectorOutput:
        """From features [N, L, C] and text [N, C]; `head` turns decoder states into box deltas."""
        grid = self.grid(level_shapes, features)
        image, text = self.encoder(features, text, grid, self.level_embed, level_shapes)
        proposals = self._proposals(image, text, grid)
        queries = self.tgt_embed.weight.expand(features.shape[0], -1, -1)
        layers = self.decoder(queries, proposals.boxes.detach(), image, text, level_shapes, head)
        return DetectorOutput(layers, proposals)

    def _proposals(self, image: Tensor, text: Tensor, grid: Grid) -> Proposals:
        anchors, valid = self.anchors(grid)
        states = self.enc_output_norm(self.enc_output(image * valid))
        logits, index = self.proposal_scores(states, text).topk(self.queries, 1)
        deltas = self.enc_out_bbox_embed(take(states, index))
        return Proposals(logits, self.proposal_boxes(deltas, anchors[index]))


class Detector(nn.Module):
    """The detector, `model.g_dino` of a checkpoint.

    Args:
        config: sizes.
        language_hidden: width of the RST.
    """

    def __init__(self, config: DetectorConfig, language_hidden: int):
        super().__init__()
        self.config = config
        self.normalise = Normalise(config)
        self.backbone = nn.ModuleList([Swin(config.backbone)])
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, config.hidden, 1), nn.GroupNorm(32, config.hidden))
            for channels in config.backbone.channels
        )
        extra = nn.Conv2d(config.backbone.channels[-1], config.hidden, 3, stride=2, padding=1)
        self.input_proj.append(nn.Sequential(extra, nn.GroupNorm(32, config.hidden)))
        self.transformer = Transformer(config)
        self.bbox_embed = nn.ModuleList([box_head(config.hidden)])  # one, shared by all decoder layers
        self.llm_feat_map = nn.Linear(language_hidden, config.hidden)
        for layer in (*(projection[0] for projection in self.input_proj), self.llm_feat_map):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.register_load_state_dict_pre_hook(merge_copies)

    def features(self, frames: Tensor) -> Tensor:
        """Everything that depends on the frames alone.

        Args:
            frames: uint8 [N, H, W, 3], RGB.

        Returns:
            [N, L, C]: the four levels of devil.config.level_shapes(H, W), one after another, each row by row.
        """
        image = self.normalise(frames).to(self.llm_feat_map.weight.dtype)
        maps = self.backbone[0](image)
        levels = [project(level) for project, level in zip(self.input_proj, [*maps, maps[-1]], strict=True)]
        return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)

    def ground(self, features: Tensor, level_shapes: Tensor, rst: Tensor) -> DetectorOutput:
        """Looks for what the RST means.

        Args:
            features: [N, L, C] of `features`.
            level_shapes: int64 [levels, 2] of (height, width); on the CPU it spares a GPU some waiting.
            rst: [language_hidden], or [N, language_hidden] for one per frame.

        Raises:
            DevilError: the level shapes do not describe the features, or the frames are too small for the queries.
        """
        if not (torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting()):
            self._check(features.shape[1], level_shapes)
        text = self.llm_feat_map(rst.to(self.llm_feat_map.weight.dtype)).expand(features.shape[0], -1)
        return self.transformer(features, text, level_shapes, self.bbox_embed[0])

    def forward(self, frames: Tensor, level_shapes: Tensor, rst: Tensor) -> DetectorOutput:
        return self.ground(self.features(frames), level_shapes, rst)

    def _check(self, length: int, level_shapes: Tensor) -> None:
        shapes = level_shapes.tolist()
        if sum(height * width for height, width in shapes) != length:
            raise DevilError(f"level shapes {shapes} do not add up to {length} features", "pass those of the frames")
        if length < self.config.queries:
            raise DevilError(f"{length} features cannot make {self.config.queries} queries", "use larger frames")


def box_head(hidden: int) -> Mlp:
    """Predicts box deltas; all zero at the start of training."""
    head = Mlp(hidden, hidden, hidden, 4)
    nn.init.zeros_(head.layers[-1].weight)
    nn.init.zeros_(head.layers[-1].bias)
    return head
