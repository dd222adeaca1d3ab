"""A detector of Swin-T's sizes at 640 × 360 in 8 bits: against itself in fp32 and against transformers in PyTorch.

Weights are random and ranges are those of random pictures, so nothing is said of accuracy; a form's time is the same.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from harness import Row, faster, figure, paired_medians
from torch import Tensor, nn
from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection
from transformers import SwinConfig as TransformersSwinConfig

from devil.assets import reference_checkpoint
from devil.bundle import Bundle, open_bundle
from devil.calibration.bundle import write_calibrated
from devil.calibration.captures import CalibrationClip, CapturedAnswer, Captures, Run, begin, write_clip
from devil.calibration.graph import GraphCalibration
from devil.calibration.parts import quantised_part
from devil.calibration.rules import chosen_by_rule
from devil.config import PRESETS, DetectorConfig, SwinConfig, level_shapes
from devil.contract import contract
from devil.export.bundle import write_bundle
from devil.export.graphs import GraphBuilder
from devil.export.plan import Plan
from devil.export.sampling import picture
from devil.model.checkpoint import TOKENIZER
from devil.model.devil import DevilModel
from devil.runtime.engines.base import GraphRunner
from devil.runtime.engines.onnxruntime import OnnxRuntimeEngine

SWIN_T = DetectorConfig(backbone=SwinConfig(embed=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), window=7))
CONFIG = replace(PRESETS["tiny"], detector=SWIN_T)
SIZE = (360, 640)
_GRAPHS = ("backbone", "grounder")


def detector_rows(work: Path, rounds: int, threads: int) -> list[Row]:
    """Seconds per frame."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    source = float_bundle(work / "swin-t-fp32")
    calibrated = calibrated_bundle(source, work, threads)
    frames = picture(np.random.default_rng(7), 1, *SIZE)
    rst = np.random.default_rng(8).normal(size=CONFIG.language.hidden).astype(np.float32)
    runs = {name: runners(bundle, threads) for name, bundle in (("fp32", source), ("int8", calibrated))}
    reference = Reference(frames, rst)
    contenders = [lambda r=run: detect(r, frames, rst) for run in runs.values()]
    fp32, int8, theirs = paired_medians([*contenders, reference.run], rounds, clock=time.process_time)
    rows = [
        faster("Swin-T detector 640x360, int8", "the same in fp32", int8, fp32, "s", 1.6),
        faster("Swin-T detector 640x360, int8", "transformers in PyTorch", int8, theirs, "s", 3.0),
        faster("Swin-T detector 640x360, fp32", "transformers in PyTorch", fp32, theirs, "s"),
    ]
    for graph in _GRAPHS:
        feeds = graph_feeds(runs["fp32"], frames, rst)[graph]
        one, two = paired_medians(
            [lambda r=runs[name][graph], f=feeds: r.run(f) for name in ("int8", "fp32")],
            rounds,
            clock=time.process_time,
        )
        rows.append(faster(f"Swin-T {graph}, int8", "the same in fp32", one, two, "s"))
        rows.append(figure(f"Swin-T {graph}, 8-bit weights over all", share(calibrated, source, graph), "of 1"))
    return rows


def float_bundle(path: Path) -> Bundle:
    """A model with that detector and random weights, exported unless it was."""
    if not path.exists():
        builder = GraphBuilder(DevilModel(CONFIG).eval())
        write_bundle(builder, Plan.of("fp32"), reference_checkpoint() / TOKENIZER, "swin-t", path)
    return open_bundle(path)


def calibrated_bundle(source: Bundle, work: Path, threads: int) -> Bundle:
    """The detector in 8 bits, with the ranges of four random pictures."""
    path = work / "swin-t-int8"
    if not path.exists():
        captures = recorded(source, work / "swin-t-captures", threads)
        parts = {}
        for name in _GRAPHS:
            graph = GraphCalibration(source, name, captures, work, threads)
            chosen = chosen_by_rule(graph.layers, "int8")
            parts[name] = quantised_part(graph, chosen, "max", {}, "by rule")
        write_calibrated(source, path, "int8", parts)
    return open_bundle(path)


def recorded(source: Bundle, folder: Path, threads: int) -> Captures:
    begin(folder, {"pictures": "random"})
    run, random = runners(source, threads), np.random.default_rng(0)
    for number in range(4):
        frames = picture(random, 1, *SIZE)
        rst = random.normal(size=CONFIG.language.hidden).astype(np.float32)
        feeds = graph_feeds(run, frames, rst)
        runs = [Run(graph, number, feeds[graph]) for graph in _GRAPHS]
        clip = CalibrationClip(folder / str(number), ("a picture",))
        write_clip(folder, number, clip, runs, [CapturedAnswer("a picture", "", None, rst)])
    return Captures(folder)


def runners(bundle: Bundle, threads: int) -> dict[str, GraphRunner]:
    specs = contract(bundle.config)
    return {
        graph: OnnxRuntimeEngine(threads=threads).load(bundle.path(graph), specs[graph], "fp32") for graph in _GRAPHS
    }


def graph_feeds(run: dict[str, GraphRunner], frames: np.ndarray, rst: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    features = run["backbone"].run({"frames": frames})["features"]
    shapes = np.array(level_shapes(*frames.shape[1:3]), np.int64)
    return {"backbone": {"frames": frames}, "grounder": {"features": features, "level_shapes": shapes, "rst": rst}}


def detect(run: dict[str, GraphRunner], frames: np.ndarray, rst: np.ndarray) -> None:
    run["grounder"].run(graph_feeds(run, frames, rst)["grounder"])


def share(calibrated: Bundle, source: Bundle, graph: str) -> float:
    """Bytes saved over the most that 8 bits can save of fp32."""
    before, after = source.manifest.graph_bytes(graph), calibrated.manifest.graph_bytes(graph)
    return (before - after) / (0.75 * before)


class Reference:
    """transformers' Grounding DINO with these sizes and random weights, and one text token as DEViL has it."""

    def __init__(self, frames: np.ndarray, rst: np.ndarray):
        swin, hidden = SWIN_T.backbone, CONFIG.language.hidden
        backbone = TransformersSwinConfig(
            embed_dim=swin.embed, depths=list(swin.depths), num_heads=list(swin.heads), window_size=swin.window,
            out_indices=[2, 3, 4],
        )  # fmt: skip
        text = BertConfig(hidden_size=hidden, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32)
        config = GroundingDinoConfig(
            backbone_config=backbone, text_config=text, d_model=SWIN_T.hidden, encoder_layers=SWIN_T.encoder_layers,
            decoder_layers=SWIN_T.decoder_layers, encoder_ffn_dim=SWIN_T.ffn, decoder_ffn_dim=SWIN_T.ffn,
            num_queries=SWIN_T.queries, disable_custom_kernels=True,
        )  # fmt: skip
        self._model = GroundingDinoForObjectDetection(config).eval()
        self._model.model.text_backbone = _GivenText(torch.from_numpy(rst)[None])
        mean, std = torch.tensor(SWIN_T.mean), torch.tensor(SWIN_T.std)
        self._pixels = ((torch.from_numpy(frames) / 255 - mean) / std).permute(0, 3, 1, 2)

    @torch.no_grad()
    def run(self) -> None:
        self._model(self._pixels, torch.ones(1, 1, dtype=torch.long))


class _GivenText(nn.Module):
    """Stands in for BERT: it answers with one given token."""

    def __init__(self, text: Tensor):
        super().__init__()
        self.text = text

    def forward(self, *_arguments: object, **_keywords: object) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.text[:, None])
