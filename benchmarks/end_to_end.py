"""The whole path against the PyTorch model: the same answers, how fast, how much memory.

python benchmarks/end_to_end.py [--quick] [--json] [--model DIR]
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from harness import Row, command_line, faster, figure, paired_medians, report
from video_memory import memory_rows

from devil.assets import reference_checkpoint
from devil.bundle import read_manifest, write_manifest
from devil.clip import load_clip
from devil.config import DevilConfig
from devil.data.clips import picture_size
from devil.data.scene import make_scene
from devil.data.writer import write_scene
from devil.export.bundle import write_bundle
from devil.export.graphs import GraphBuilder
from devil.export.plan import Plan
from devil.metrics import box_iou
from devil.model.checkpoint import TOKENIZER, load_model
from devil.model.inference import TorchAnswer, TorchGrounder
from devil.prompt import PromptWriter
from devil.runtime.answer import Answer
from devil.runtime.language import LanguageSession
from devil.runtime.packed_run import Piece
from devil.runtime.pipeline import Grounder
from devil.runtime.slots import SHARED
from devil.tube import to_pixels


@dataclass(frozen=True)
class Options:
    """Compares bundles of a checkpoint with the PyTorch model they were exported from."""

    model: Path | None = None
    """Checkpoint folder; the shipped devil-tiny by default."""
    quick: bool = False
    """Fewer clips and rounds, no long videos."""
    json: bool = False
    """End with one JSON document."""


def main(options: Options) -> None:
    checkpoint = options.model or reference_checkpoint()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        bundles = export_bundles(checkpoint, scratch)
        rows = [
            *language_rows(checkpoint, bundles["fp32"]),
            *agreement_rows(checkpoint, bundles, scratch, 4 if options.quick else 20),
            *speed_rows(checkpoint, bundles, scratch, 3 if options.quick else 7),
            import_row(),
        ]
        if not options.quick:
            rows += memory_rows(minutes=10)
    report("end_to_end", rows, options.json)


def export_bundles(checkpoint: Path, scratch: Path) -> dict[str, Path]:
    """The checkpoint's bundle in each precision."""
    builder = GraphBuilder(load_model(checkpoint))
    folders = {precision: scratch / precision for precision in ("fp32", "fp16")}
    for precision, folder in folders.items():
        write_bundle(builder, Plan.of(precision), checkpoint / TOKENIZER, checkpoint.name, folder)
    return folders


def language_rows(checkpoint: Path, bundle: Path) -> list[Row]:
    """Logits of prefill and 32 decoding steps on one prompt, against transformers, in fp32."""
    model = load_model(checkpoint)
    grounder = Grounder.open(bundle)
    torch.manual_seed(0)
    config = model.devil
    visual = torch.randn(40, config.language.hidden)
    ids = torch.cat([config.language.vocab + torch.arange(40), torch.randint(0, config.language.vocab, (72,))])
    with torch.no_grad():
        expected = model(inputs_embeds=model.embed(ids[None], visual)).logits[0].numpy()
    session = LanguageSession(grounder.language, config)
    session.prefill(ids[:80].tolist(), visual.numpy())
    errors = []
    for position in range(80, 112):
        (found,) = session.packed.run([Piece(SHARED, ids[position : position + 1], position, asked=1)])
        errors.append(float(np.abs(found.logits[0] - expected[position]).max()))
    worst = max(errors)
    return [figure("language graph, prefill + 32 steps, max |Δlogit|", worst, "", "≤ 1e-4", worst <= 1e-4)]


def agreement_rows(checkpoint: Path, bundles: dict[str, Path], scratch: Path, clips: int) -> list[Row]:
    """Texts, spans and tubes of the bundles against the PyTorch model on synthetic clips."""
    reference = torch_grounder(checkpoint)
    config = reference.model.devil
    asked = []
    for seed in range(clips):
        scene = make_scene(seed, "heldout")
        path = scratch / f"{seed}.mp4"
        write_scene(path, scene, picture_size(scene, 128))
        sentence = scene.queries[0].sentence
        clip = load_clip(path, config)
        expected = reference.ground(clip, sentence)
        asked.append((path, sentence, expected, clip.indices[expected.rows]))
    rows = []
    for precision, least in (("fp32", 0.995), ("fp16", 0.97)):
        grounder = Grounder.open(bundles[precision])
        pairs = [(grounder.encode(path).ground(words), expected, frames) for path, words, expected, frames in asked]
        texts = statistics.mean(found.text == expected.text for found, expected, _ in pairs)
        spans = statistics.mean(found.span == expected.span for found, expected, _ in pairs)
        overlap = statistics.mean(tube_overlap(*pair) for pair in pairs)
        rows += [
            figure(f"{precision} bundle, same text on {clips} clips", texts, "of 1", "1", texts == 1),
            figure(f"{precision} bundle, same span", spans, "of 1", "1", spans == 1),
            figure(f"{precision} bundle, mean tube IoU", overlap, "", f"≥ {least}", overlap >= least),
        ]
    return rows


def tube_overlap(found: Answer, expected: TorchAnswer, frames: np.ndarray) -> float:
    """Box IoU over the frames that both tubes have, divided by the frames that either has; 1 where both have none.

    Args:
        found: the runtime's answer.
        expected: PyTorch's.
        frames: int [R], the file's frames that the expected boxes are on.
    """
    if found.tube is None or len(frames) == 0:
        return float(found.tube is None and len(frames) == 0)
    boxes = to_pixels(expected.boxes, found.info.width, found.info.height)
    theirs = dict(zip(frames.tolist(), boxes, strict=True))
    ours = dict(zip(found.tube.frames.tolist(), found.tube.boxes, strict=True))
    overlaps = [box_iou(ours[frame], theirs[frame]) for frame in theirs.keys() & ours.keys()]
    return float(sum(overlaps)) / len(theirs.keys() | ours.keys())


def speed_rows(checkpoint: Path, bundles: dict[str, Path], scratch: Path, rounds: int) -> list[Row]:
    """A 64-frame run, and a second sentence on the same video, against PyTorch eager in this process."""
    scene = make_scene(3, "heldout")
    path = scratch / "speed.mp4"
    write_scene(path, scene, picture_size(scene, 128))
    sentences = [query.sentence for query in scene.queries[:2]]
    reference = torch_grounder(checkpoint)
    config = sixty_four_frames(reference.model.devil)

    def torch_run() -> None:
        reference.ground(load_clip(path, config), sentences[0])

    rows = []
    for precision, bundle in bundles.items():
        manifest = read_manifest(bundle)
        write_manifest(bundle, dataclasses.replace(manifest, config=config))  # the graphs take any number of frames
        grounder = Grounder.open(bundle, threads=2)
        ours, theirs = paired_medians([lambda g=grounder: g.encode(path).ground(sentences[0]), torch_run], rounds)
        rows.append(faster(f"{precision}, 64 frames, whole run", "PyTorch eager fp32", ours, theirs, "s", 1.0))
        rows += second_sentence_rows(grounder, path, sentences, precision, rounds)
    return rows


def sixty_four_frames(config: DevilConfig) -> DevilConfig:
    """The same model asked about 64 frames, each as large as before."""
    return dataclasses.replace(config, frames=64, max_tokens=config.max_tokens * 64 // config.frames)


def second_sentence_rows(
    grounder: Grounder, path: Path, sentences: list[str], precision: str, rounds: int
) -> list[Row]:
    """What a second sentence costs, and where the first one's time goes."""
    first, second, stages = [], [], []
    for _ in range(rounds):
        video = grounder.encode(path)
        answers = [video.ground(sentence) for sentence in sentences]
        first.append(sum(answers[0].timings.values()))
        second.append(sum(answers[1].timings.values()))
        stages.append(answers[0].timings)
    share = statistics.median(second) / statistics.median(first)
    rows = [figure(f"{precision}, second sentence / first", share, "of 1", "≤ 0.5", share <= 0.5)]
    for stage in stages[0]:
        part = statistics.median(timings[stage] / sum(timings.values()) for timings in stages)
        rows.append(figure(f"{precision}, share of {stage}", part, "of 1"))
    return rows


def import_row() -> Row:
    """Seconds that `import devil.runtime.pipeline` takes in a fresh process."""
    code = "import time; s = time.perf_counter(); import devil.runtime.pipeline; print(time.perf_counter() - s)"
    seconds = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    median = statistics.median(seconds)
    return figure("import of the runtime", median, "s", "< 0.5", median < 0.5)


def torch_grounder(checkpoint: Path) -> TorchGrounder:
    model = load_model(checkpoint)
    return TorchGrounder(model, PromptWriter(checkpoint / TOKENIZER, model.devil))


if __name__ == "__main__":
    main(command_line(Options))
