"""What gpu_check.py measures of one engine."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from devil.bundle import read_manifest
from devil.config import level_shapes
from devil.contract import contract
from devil.data.clips import picture_size
from devil.data.scene import make_scene
from devil.data.writer import write_scene
from devil.gpu import memory_in_use
from devil.metrics import box_iou
from devil.runtime.answer import Answer
from devil.runtime.engines.base import AsyncRunner
from devil.runtime.engines.choice import open_engine
from devil.runtime.pipeline import Grounder


def agreement(ours: Grounder, reference: Grounder, clips: int) -> dict[str, float]:
    """Share of clips with the reference's text and span, and the mean overlap of the tubes."""
    texts, spans, overlaps = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(clips):
            path, sentence = clip(Path(folder), seed)
            found, expected = (grounder.encode(path).ground(sentence) for grounder in (ours, reference))
            texts.append(found.text == expected.text)
            spans.append(found.span == expected.span)
            overlaps.append(overlap(found, expected))
    return {
        "clips": clips,
        "texts": float(np.mean(texts)),
        "spans": float(np.mean(spans)),
        "tube_iou": float(np.mean(overlaps)),
    }


def overlap(found: Answer, expected: Answer) -> float:
    """Box IoU over the frames both tubes have, divided by the frames either has; 1 where neither has one."""
    if found.tube is None or expected.tube is None:
        return float(found.tube is expected.tube)
    ours, theirs = (dict(zip(a.tube.frames.tolist(), a.tube.boxes, strict=True)) for a in (found, expected))
    return float(sum(box_iou(ours[f], theirs[f]) for f in ours.keys() & theirs.keys())) / len({*ours, *theirs})


def stages(grounder: Grounder, rounds: int) -> dict[str, float]:
    """Median seconds of every stage of one sentence about a new video, and of all of it (`total`)."""
    with tempfile.TemporaryDirectory() as folder:
        path, sentence = clip(Path(folder), 3)
        timings = []
        for _ in range(rounds + 1):  # one to warm up
            began = time.perf_counter()
            answer = grounder.encode(path).ground(sentence)
            timings.append({**answer.timings, "total": time.perf_counter() - began})
    return {name: statistics.median(seconds[name] for seconds in timings[1:]) for name in timings[-1]}


def growth(grounder: Grounder, sentences: int) -> dict[str, Any]:
    """How much more memory is in use after many sentences than after the first few; MB, None where nobody tells."""
    with tempfile.TemporaryDirectory() as folder:
        path, sentence = clip(Path(folder), 3)
        before = None
        for index in range(sentences):
            if index % 10 == 0:
                video = grounder.encode(path)
            video.ground(sentence)
            if index == min(20, sentences // 2):
                before = gpu_megabytes(), resident_megabytes()
        after = gpu_megabytes(), resident_megabytes()
    gpu, host = (b - a if a is not None and b is not None else None for a, b in zip(before, after, strict=True))
    return {"sentences": sentences, "gpu_mb": gpu, "host_mb": host}


def detector_speed(folder: Path, engine_name: str, frame: str, rounds: int = 20) -> dict[str, float]:
    """Frames per second of backbone and grounder together on 64 frames, features staying where they are."""
    from devil.bundle import Bundle

    bundle = Bundle(folder, read_manifest(folder))
    engine = open_detector(bundle, engine_name)
    specs = contract(bundle.config)
    backbone, grounder = (
        engine.load(bundle.path(name), specs[name], bundle.manifest.graph_precision(name))
        for name in ("backbone", "grounder")
    )
    height, width = map(int, frame.split("x"))
    batch = backbone.most("N", {"H": height, "W": width}) or 8
    frames = np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), np.uint8)
    rest = {
        "level_shapes": np.array(level_shapes(height, width), np.int64),
        "rst": np.ones(bundle.config.language.hidden, np.float32),
    }
    assert isinstance(backbone, AsyncRunner)
    seconds, count = [], -(-64 // batch)
    for _ in range(rounds + 2):
        began = time.perf_counter()
        started = [backbone.submit({"frames": frames}) for _ in range(count)]
        for pending in started:
            grounder.run({"features": pending.rows("features"), **rest})
        seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds[2:])
    return {"batch": batch, "frames": count * batch, "seconds": median, "frames_per_second": count * batch / median}


def open_detector(bundle: Any, name: str) -> Any:
    """The engine for a bundle that has no more than the detector."""
    if name == "cuda":
        return open_engine(bundle, "cuda")
    from devil.runtime.engines.gate import NumericGate
    from devil.runtime.engines.tensorrt.engine import TensorRtEngine

    return TensorRtEngine(bundle, name, NumericGate(trust=True))  # random weights have only near ties to compare


def clip(folder: Path, seed: int) -> tuple[Path, str]:
    """A synthetic clip and a sentence about it."""
    scene, path = make_scene(seed, "heldout"), folder / f"{seed}.mp4"
    if not path.exists():
        write_scene(path, scene, picture_size(scene, 128))
    return path, scene.queries[0].sentence


def gpu_megabytes() -> int | None:
    """In use on the first GPU, by all processes; None where nobody tells."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        in_use = memory_in_use()  # a Jetson has no such program
        return None if in_use is None else in_use >> 20


def resident_megabytes() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * 4096 >> 20
